"""The public model: decoupled, owns the frame loop. All work is in ``runtime.serving``."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils

from runtime.contracts import FUN_AUDIO_CHAT
from runtime.tritonserver import backend as pb


class TritonPythonModel:
    """Hands requests to the service and returns."""

    @staticmethod
    def auto_complete_config(config: Any) -> Any:
        """Inputs and outputs from the contract."""
        return pb.auto_complete(config, FUN_AUDIO_CHAT)

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the engines and starts the service's threads."""
        # Imported here, because the process that only asks for the configuration imports this file too.
        from runtime.tritonserver.chat_model import ChatModel

        self.chat = ChatModel(pb_utils, pb.built_folder(args))

    def execute(self, requests: list[Any]) -> None:
        """Answers come later, through each request's response sender."""
        for request in requests:
            self.chat.accept(request)

    def finalize(self) -> None:
        """Ends live requests with an error and joins the threads."""
        self.chat.close()
