"""The audio encoder: log-mel of a request's clips to 5 Hz embeddings."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from runtime.contracts import AUDIO_ENCODER
from runtime.opening import open_encoder
from runtime.options import Options
from runtime.tritonserver import backend as pb


class TritonPythonModel:
    """Runs the encoder of the checkpoint's family."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Inputs and outputs from the contract."""
        return pb.auto_complete(config, AUDIO_ENCODER)

    def initialize(self, args: dict[str, str]) -> None:
        """Opens the graph."""
        self._stage = open_encoder(Options.read(pb.built_folder(args)), pb.gpu(args))

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request."""
        return pb.answer_each(pb_utils, AUDIO_ENCODER, requests, self._stage.run)
