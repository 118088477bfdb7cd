"""The public model as Triton's Python backend sees it: its requests, their responses, its metrics."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime.requests.parse import Arrays
from runtime.serving.metrics import metric_families
from runtime.tritonserver.backend import fail, inputs, respond
from runtime.tritonserver.metrics import MetricBoard
from runtime.tritonserver.stage_calls import BlsStages
from runtime.tritonserver.start import start_service

US_PER_S = 1_000_000


class TritonSender:
    """``ResponseSender`` over the decoupled sender of a request."""

    def __init__(self, pb_utils: Any, request: Any) -> None:
        self._pb, self._sender = pb_utils, request.get_response_sender()
        self._final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        self._sender.send(respond(self._pb, FUN_AUDIO_CHAT, arrays), flags=self._final if final else 0)

    def fail(self, error: BaseException) -> None:
        self._sender.send(fail(self._pb, error), flags=self._final)

    def close(self) -> None:
        self._sender.send(flags=self._final)

    def is_cancelled(self) -> bool:
        """Asking takes shared memory too: where there is none, the client is taken to be there."""
        try:
            return bool(self._sender.is_cancelled())
        except self._pb.TritonModelException:
            return False


class TritonRequest:
    """``RawRequest`` over a request of the backend."""

    def __init__(self, request: Any) -> None:
        self._request = request

    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._request.parameters() or "{}")
        return found

    def samples(self) -> int:
        shapes = {tensor.name(): tensor.shape() for tensor in self._request.inputs()}
        return math.prod(shapes.get("audio", (0,)))

    def timeout_s(self) -> float | None:
        timeout_us = self._request.timeout()
        return timeout_us / US_PER_S if timeout_us else None

    def read(self, check: Callable[[Arrays], None]) -> tuple[Arrays, frozenset[str]]:
        given = inputs(self._request, FUN_AUDIO_CHAT)
        check(given)
        # Copies, because the request's memory is Triton's and this request outlives execute().
        arrays = {name: np.array(array) for name, array in given.items()}
        return arrays, frozenset(self._request.requested_output_names())


class ChatModel:
    """The running service of one model instance, as Triton's callbacks see it."""

    def __init__(self, pb_utils: Any, folder: Path) -> None:
        self._pb = pb_utils
        self.service = start_service(folder, BlsStages(pb_utils))
        service = self.service
        board = MetricBoard(pb_utils, metric_families(service.family.caches))
        service.observe(lambda: board.show(service.gauges(), service.metrics.take()))

    def accept(self, request: Any) -> None:
        """Hands a request to the service."""
        self.service.door.receive(TritonRequest(request), TritonSender(self._pb, request))

    def close(self) -> None:
        """Ends live requests with an error and joins the threads."""
        self.service.stop()
