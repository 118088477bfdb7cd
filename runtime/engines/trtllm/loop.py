"""The frame loop over compiled engines. Not yet run on a GPU; here over doubles of the engines."""

from __future__ import annotations

from collections.abc import Callable

import torch

from kernels.choice import Draws
from kernels.ops import Ops, ops_for
from runtime.checkpoint.weights import load_weights
from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.sizes import backbone_profile, speech_profile
from runtime.engines.trtllm.files import BACKBONE_ENGINE, ENGINES, SPEECH_ENGINE, load_engine
from runtime.engines.trtllm.spec import EngineProfile
from runtime.families.fun_audio_chat.build import state_sizes
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.decisions import Decisions, frame_tables
from runtime.families.fun_audio_chat.packed import EngineModel
from runtime.families.fun_audio_chat.projections import TABLES, Projections
from runtime.families.fun_audio_chat.state import SlotState
from runtime.families.fun_audio_chat.tensors import CODEBOOK, all_shapes
from runtime.frame_loop import FrameLoop
from runtime.frames.loop import OverlapLoop
from runtime.graphs.device import CudaDevice
from runtime.graphs.executor import executor_for, gpu_device
from runtime.options import Options
from runtime.scheduling.scheduler import Scheduler

OpenEngine = Callable[[str, EngineProfile], Engine]


def compiled_loop(options: Options, config: ModelConfig) -> FrameLoop:
    """Loads both engines of a rendered folder onto the current GPU.

    Raises:
        BuildError: an engine is missing or another one, or this is not the container that it was built in.
    """
    where = gpu_device(0)
    device = CudaDevice(where.index)  # shared: the engines run one after another

    def open_engine(name: str, profile: EngineProfile) -> Engine:
        return load_engine(name, options.path(ENGINES) / name, profile, device, options.engine.graphs)

    loop = loop_over(options, config, where, open_engine)
    loop.prepare()
    return loop


def loop_over(
    options: Options,
    config: ModelConfig,
    device: torch.device,
    open_engine: OpenEngine,
    ops: Ops | None = None,
    draws: Draws | None = None,
) -> OverlapLoop[EngineModel]:
    """Wires engines of the options' profiles with the tables that stay in torch, on ``device``.

    Args:
        ops: what chooses ids and embeds them; by default what suits the device.
        draws: replaces the seeded random numbers (tests).
    """
    engine, executor = options.engine, executor_for(device)
    backbone = open_engine(BACKBONE_ENGINE, backbone_profile(config, engine))
    speech = open_engine(SPEECH_ENGINE, speech_profile(config, engine))
    shapes = {name: shape for name, shape in all_shapes(config).items() if name in TABLES}
    weights = load_weights(config.directory, shapes, getattr(torch, engine.dtype), device)
    with torch.inference_mode():
        state = SlotState(state_sizes(config, engine.max_streams), weights[CODEBOOK], draws)
        decisions = Decisions(frame_tables(weights), state, ops or ops_for(device))
    caches = KvCache(backbone.shape), KvCache(speech.shape)
    stacks = (backbone, caches[0]), (speech, caches[1])
    model = EngineModel(executor, *stacks, Projections(config, weights), decisions)
    return OverlapLoop(Scheduler(engine.limits, *caches, config.speech_ids.group_size), model)
