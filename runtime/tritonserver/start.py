"""From a rendered folder to a running service."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from runtime.engines.trtllm.files import ENGINES
from runtime.families.registry import open_family
from runtime.graphs.options import TENSORRT
from runtime.heap import set_apart
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
    family = open_family(options.path(options.model))
    engines = options.path(ENGINES) if options.target == TENSORRT else None
    loop = family.loop(options.engine, engines)
    service = ChatService(options, family, loop, stages, Sizes.read(options.path(options.token2wav.dir)))
    set_apart()
    service.start()
    return service
