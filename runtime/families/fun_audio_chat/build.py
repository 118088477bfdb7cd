"""From a checkpoint to a frame loop: on the torch engine, on recorded kernels, or on compiled engines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from kernels.choice import Draws
from kernels.ops import Ops
from runtime.checkpoint.shards import Shapes
from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import CUDA, EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.engines.torch_engine import TorchEngine
from runtime.engines.trtllm.files import load_engine
from runtime.families.fun_audio_chat.config import ModelConfig, cache_specs
from runtime.families.fun_audio_chat.decisions import Decisions, frame_tables
from runtime.families.fun_audio_chat.packed import PackedModel
from runtime.families.fun_audio_chat.profiles import BACKBONE_ENGINE, SPEECH_ENGINE, backbone_profile, speech_profile
from runtime.families.fun_audio_chat.projections import TABLES, Projections
from runtime.families.fun_audio_chat.recorded import RecordedModel
from runtime.families.fun_audio_chat.stacks import build_steps, matrix_for, state_sizes
from runtime.families.fun_audio_chat.state import SlotState
from runtime.families.fun_audio_chat.steps import FrameSteps
from runtime.families.fun_audio_chat.tensors import (
    BACKBONE,
    CODEBOOK,
    SPEECH_STACK,
    all_shapes,
    backbone_shapes,
    speech_shapes,
)
from runtime.frames.loop import FrameLoop, QueuedModel
from runtime.graphs.device import CudaDevice, ops_for
from runtime.graphs.executor import Executor, executor_for, gpu_device
from runtime.scheduling.caches import Cache
from runtime.scheduling.scheduler import Limits, Scheduler

CPU = torch.device("cpu")
Caches = tuple[KvCache, KvCache]
Weights = Mapping[str, torch.Tensor]


def build_loop(config: ModelConfig, options: EngineOptions, engines: Path | None = None) -> FrameLoop:
    """Loads what the options ask for, ready to run.

    Args:
        engines: folder of compiled engines, for the current GPU; None runs the checkpoint itself.

    Raises:
        BuildError: a tensor or an engine is missing or does not fit, or there is no such device.
    """
    if engines is not None:
        loop = compiled_loop(config, options, engines)
    elif options.device == CUDA:
        loop = recorded_loop(config, options, gpu_device(0))
    else:
        loop = torch_loop(config, options)
    loop.model.prepare()
    return loop


def torch_loop(config: ModelConfig, options: EngineOptions, draws: Draws | None = None) -> FrameLoop:
    """Both stacks in plain torch on the CPU, every frame settled at once."""
    weights = _all_weights(config, options, CPU)
    return packed_loop(config, options, torch_engines(config, options, weights), weights, CPU, False, draws=draws)


def torch_engines(config: ModelConfig, options: EngineOptions, weights: Weights) -> tuple[TorchEngine, TorchEngine]:
    """Backbone and speech head over weights that lie on the CPU."""
    shape = engine_shape(config.backbone, options, 1)
    speech_shape = engine_shape(config.speech_head, options, config.speech_ids.group_size)
    backbone = TorchEngine(config.backbone, shape, weights, BACKBONE, [weights["language_model.lm_head.weight"]])
    head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    return backbone, TorchEngine(config.speech_head, speech_shape, weights, SPEECH_STACK, head, last_only=True)


def compiled_loop(config: ModelConfig, options: EngineOptions, folder: Path) -> FrameLoop:
    """Both engines that TensorRT-LLM compiled, on the current GPU. Not yet run on one; here over doubles."""
    where = gpu_device(0)
    device = CudaDevice(where.index)  # shared: the engines run one after another
    profiles = {
        BACKBONE_ENGINE: backbone_profile(config, options),
        SPEECH_ENGINE: speech_profile(config, options),
    }
    backbone, speech = (load_engine(n, folder / n, p, device, options.graphs) for n, p in profiles.items())
    return packed_loop(config, options, (backbone, speech), load_tables(config, options, where), where, True)


def load_tables(config: ModelConfig, options: EngineOptions, device: torch.device) -> dict[str, torch.Tensor]:
    """The weights between the two stacks, which stay in torch."""
    shapes = {name: shape for name, shape in all_shapes(config).items() if name in TABLES}
    return _load(config, options, shapes, device)


def packed_loop(
    config: ModelConfig,
    options: EngineOptions,
    engines: tuple[Engine, Engine],
    weights: Weights,
    device: torch.device,
    ahead: bool,
    ops: Ops | None = None,
    draws: Draws | None = None,
) -> FrameLoop:
    """Wires engines that take packed bindings with the tables between them.

    Args:
        ahead: see ``FrameLoop``.
        ops: what chooses ids and embeds them; by default what suits the device.
        draws: replaces the seeded random numbers (tests).
    """
    with torch.inference_mode():
        state = SlotState(state_sizes(config, options.max_streams), weights[CODEBOOK], draws)
        decisions = Decisions(frame_tables(weights), state, ops or ops_for(device))
    backbone, speech = engines
    caches = KvCache(backbone.shape), KvCache(speech.shape)
    stacks = (backbone, caches[0]), (speech, caches[1])
    model = PackedModel(executor_for(device), *stacks, Projections(config, weights), decisions)
    return assemble(config, options, caches, model, ahead)


def recorded_loop(
    config: ModelConfig,
    options: EngineOptions,
    device: torch.device,
    ops: Ops | None = None,
    draws: Draws | None = None,
    executor: Executor | None = None,
) -> FrameLoop:
    """Both stacks in kernels on a device, every frame as recorded graphs.

    Args:
        ops: what runs between the matrices; by default what suits the device.
        draws: replaces the seeded random numbers (tests).
        executor: by default the one that suits the device.
    """
    weights = _all_weights(config, options, device)
    with torch.inference_mode():
        matrix = matrix_for(options.linear, device)
        steps = build_steps(config, options, weights, ops or ops_for(device), matrix, draws)
    return steps_loop(config, options, steps, weights, executor or executor_for(device))


def steps_loop(
    config: ModelConfig, options: EngineOptions, steps: FrameSteps, weights: Weights, executor: Executor
) -> FrameLoop:
    """Wires steps over kernels with caches and scheduler."""
    caches = KvCache(steps.backbone_stack.stack.shape), KvCache(steps.speech_stack.stack.shape)
    model = RecordedModel(executor, steps, Projections(config, weights), caches)
    return assemble(config, options, caches, model, ahead=True)


def assemble(config: ModelConfig, options: EngineOptions, caches: Caches, model: QueuedModel, ahead: bool) -> FrameLoop:
    """The loop over a model and the caches that its blocks come from."""
    bound = [Cache(spec, kv) for spec, kv in zip(cache_specs(config), caches, strict=True)]
    return FrameLoop(Scheduler(Limits.of(options), bound), model, ahead)


def _all_weights(config: ModelConfig, options: EngineOptions, device: torch.device) -> dict[str, torch.Tensor]:
    return _load(config, options, backbone_shapes(config) | speech_shapes(config), device)


def _load(config: ModelConfig, options: EngineOptions, shapes: Shapes, device: torch.device) -> dict[str, torch.Tensor]:
    from runtime.checkpoint.weights import load_weights  # late: random weights need no library for files

    return load_weights(config.directory, shapes, getattr(torch, options.dtype), device)
