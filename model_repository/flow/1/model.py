"""Speech tokens of many streams to mel."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from runtime.contracts import FLOW
from runtime.opening import open_flow
from runtime.options import Options
from runtime.tritonserver import backend as pb
from runtime.tritonserver.metrics import StageGauges


class TritonPythonModel:
    """Runs ``runtime.token2wav.flow.stage``."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Inputs and outputs from the contract."""
        return pb.auto_complete(config, FLOW)

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the graphs."""
        self._stage = open_flow(Options.read(pb.built_folder(args)), pb.gpu(args))
        self._gauges = StageGauges(pb_utils, FLOW.name, self._stage)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; a request is already a batch of chunks."""
        responses = pb.answer_each(pb_utils, FLOW, requests, self._stage.run)
        self._gauges.update()
        return responses
