"""From a rendered folder to a running service."""

from __future__ import annotations

from pathlib import Path

import torch

from runtime.checkpoint.config import ModelConfig
from runtime.engines.build import build_frame_loop
from runtime.options import Options
from runtime.serving.service import ChatService
from runtime.serving.stages import Stages
from runtime.token2wav.layout import Sizes


def start_service(folder: Path, stages: Stages) -> ChatService:
    """Loads the engines of a rendered folder and starts the service over ``stages``."""
    options = Options.read(folder)
    torch.set_num_threads(options.threads)
    config = ModelConfig.read(options.path(options.model))
    loop = build_frame_loop(config, options.engine)
    service = ChatService(options, config, loop, stages, Sizes.read(options.path(options.token2wav.dir)))
    service.start()
    return service
