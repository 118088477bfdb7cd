"""The public model: decoupled, owns the frame loop. All work is in ``runtime.serving``."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from runtime.contracts import FUN_AUDIO_CHAT
from runtime.serving import pb
from runtime.serving.stages import BlsStages
from runtime.serving.start import start_service
from runtime.serving.triton import Gauges, accept


class TritonPythonModel:
    """Registers requests with the service and returns."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Inputs and outputs from the contract."""
        return pb.auto_complete(config, FUN_AUDIO_CHAT)

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the engines and starts the service's threads."""
        self._service = start_service(pb.built_folder(args), BlsStages(pb_utils))
        self._service.observe(Gauges(pb_utils, self._service).update)

    def execute(self, requests: list[Any]) -> None:
        """Answers come later, through each request's response sender."""
        for request in requests:
            accept(pb_utils, self._service, request)

    def finalize(self) -> None:
        """Ends live requests with an error and joins the threads."""
        self._service.stop()
