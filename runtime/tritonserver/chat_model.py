"""What ``fun_audio_chat`` needs of Triton: the door for its requests, their replies, metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime.serving.door import Asked, Check
from runtime.tritonserver.backend import fail, inputs, respond
from runtime.tritonserver.metrics import MetricBoard
from runtime.tritonserver.stage_calls import BlsStages
from runtime.tritonserver.start import start_service

US_PER_S = 1_000_000


class TritonReply:
    """``Reply`` over a decoupled response sender."""

    def __init__(self, pb_utils: Any, request: Any) -> None:
        self._pb, self._sender = pb_utils, request.get_response_sender()
        self._final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        """See ``Reply``."""
        self._sender.send(respond(self._pb, FUN_AUDIO_CHAT, arrays), flags=self._final if final else 0)

    def fail(self, error: BaseException) -> None:
        """See ``Reply``."""
        self._sender.send(fail(self._pb, error), flags=self._final)

    def close(self) -> None:
        """See ``Reply``."""
        self._sender.send(flags=self._final)

    def is_cancelled(self) -> bool:
        """See ``Reply``. Asking takes shared memory too: where there is none, the client is taken to be there."""
        try:
            return bool(self._sender.is_cancelled())
        except self._pb.TritonModelException:
            return False


class FrontDoor:
    """The running service of one model instance, as Triton's callbacks see it."""

    def __init__(self, pb_utils: Any, folder: Path) -> None:
        self._pb = pb_utils
        self._service = start_service(folder, BlsStages(pb_utils))
        board, service = MetricBoard(pb_utils), self._service
        service.observe(lambda: board.show(service.gauges(), service.metrics.take()))

    def accept(self, request: Any) -> None:
        """Hands a request to the service; one that cannot even be read is answered here."""
        reply = TritonReply(self._pb, request)
        try:
            asked = _asked(request)
        except Exception as error:
            self._service.door.refuse(reply, error)
            return
        self._service.door.receive(asked, reply, lambda check: _read(request, check))

    def close(self) -> None:
        """Ends live requests with an error and joins the threads."""
        self._service.stop()


def _asked(request: Any) -> Asked:
    shapes = {tensor.name(): tensor.shape() for tensor in request.inputs()}
    timeout_us = request.timeout()
    return Asked(
        parameters=json.loads(request.parameters() or "{}"),
        samples=math.prod(shapes.get("audio", (0,))),
        timeout_s=timeout_us / US_PER_S if timeout_us else None,
    )


def _read(request: Any, check: Check) -> tuple[dict[str, np.ndarray], frozenset[str]]:
    given = inputs(request, FUN_AUDIO_CHAT)
    check(given)
    # Copies, because the request's memory is Triton's and this request outlives execute().
    arrays = {name: np.array(array) for name, array in given.items()}
    return arrays, frozenset(request.requested_output_names())
