"""The frame loop over compiled engines. Not yet run on a GPU; here over doubles of the engines."""

from __future__ import annotations

from collections.abc import Callable

import torch

from runtime.checkpoint.config import ModelConfig
from runtime.checkpoint.layout import all_shapes
from runtime.checkpoint.weights import load_weights
from runtime.engines.base import Engine
from runtime.engines.build import assemble
from runtime.engines.device import CudaDevice
from runtime.engines.sizes import backbone_profile, speech_profile
from runtime.engines.trtllm_files import BACKBONE_ENGINE, ENGINES, SPEECH_ENGINE, load_engine
from runtime.engines.trtllm_spec import EngineProfile
from runtime.frame_loop import FrameLoop
from runtime.models.speech_head import TABLES, Projections
from runtime.options import Options

OpenEngine = Callable[[str, EngineProfile], Engine]


def compiled_loop(options: Options, config: ModelConfig) -> FrameLoop:
    """Loads both engines of a rendered folder onto the current GPU.

    Raises:
        BuildError: an engine is missing or another one, or this is not the container that it was built in.
    """
    device = CudaDevice()  # shared: the engines run one after another

    def open_engine(name: str, profile: EngineProfile) -> Engine:
        return load_engine(name, options.path(ENGINES) / name, profile, device)

    return loop_over(options, config, torch.device("cuda"), open_engine)


def loop_over(options: Options, config: ModelConfig, device: torch.device, open_engine: OpenEngine) -> FrameLoop:
    """Wires engines of the options' profiles with the tables that stay in torch, on ``device``."""
    engine = options.engine
    backbone = open_engine(BACKBONE_ENGINE, backbone_profile(config, engine))
    speech = open_engine(SPEECH_ENGINE, speech_profile(config, engine))
    shapes = {name: shape for name, shape in all_shapes(config).items() if name in TABLES}
    weights = load_weights(config.directory, shapes, getattr(torch, engine.dtype), device)
    return assemble(config, engine, backbone, speech, Projections(config, weights))
