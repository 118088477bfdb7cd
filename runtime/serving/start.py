"""From a rendered folder to a running service."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from runtime.checkpoint.config import ModelConfig
from runtime.engines.build import build_frame_loop
from runtime.options import Options
from runtime.serving.service import ChatService
from runtime.serving.stages import Stages
from runtime.token2wav.layout import Sizes

SWITCH_INTERVAL_S = 0.0005


def start_service(folder: Path, stages: Stages) -> ChatService:
    """Loads the engines of a rendered folder and starts the service over ``stages``."""
    # Two threads share this process. With the default of 5 ms the asyncio thread would hold the frame
    # loop up at each of its many short torch calls.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    options = Options.read(folder)
    torch.set_num_threads(options.threads)
    config = ModelConfig.read(options.path(options.model))
    loop = build_frame_loop(config, options.engine)
    service = ChatService(options, config, loop, stages, Sizes.read(options.path(options.token2wav.dir)))
    service.start()
    return service
