"""Log-mel features and frame counts of the clips of a request."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from runtime.contracts import LOG_MEL
from runtime.frontend.mel import log_mel_batch
from runtime.options import Options
from runtime.tritonserver import backend as pb


class TritonPythonModel:
    """Runs ``runtime.frontend.mel``."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Inputs and outputs from the contract."""
        return pb.auto_complete(config, LOG_MEL)

    def initialize(self, args: dict[str, str]) -> None:
        """Reads the extractor's sizes."""
        self._features = Options.read(pb.built_folder(args)).features

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return pb.answer_each(pb_utils, LOG_MEL, requests, lambda arrays: log_mel_batch(arrays, self._features))
