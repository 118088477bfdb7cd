"""From a checkpoint to a ready frame loop on the torch engine."""

from __future__ import annotations

import torch

from runtime.checkpoint.weights import load_weights
from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import CUDA, EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.engines.torch_engine import TorchEngine
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.tensors import BACKBONE, CODEBOOK, SPEECH_STACK, backbone_shapes, speech_shapes
from runtime.frame_loop import FrameLoop
from runtime.lockstep import Lockstep
from runtime.sampling import Sampler
from runtime.scheduling.scheduler import Scheduler


def build_frame_loop(config: ModelConfig, options: EngineOptions, sampler: Sampler | None = None) -> FrameLoop:
    """Loads backbone and speech head and wires caches, engines, scheduler and sampler.

    On device ``cuda`` it is the loop of ``runtime.frames``, ready to run; ``sampler`` must be None then.

    Raises:
        BuildError: a tensor is missing or mis-shaped, or there is no such device.
    """
    if options.device == CUDA:
        assert sampler is None, "on a GPU ids are chosen by the frames themselves"
        return _on_gpu(config, options)
    group = config.speech_ids.group_size
    weights = load_weights(
        config.directory, backbone_shapes(config) | speech_shapes(config), getattr(torch, options.dtype)
    )
    shape = engine_shape(config.backbone, options, 1)
    speech_shape = engine_shape(config.speech_head, options, group)
    backbone = TorchEngine(config.backbone, shape, weights, BACKBONE, [weights["language_model.lm_head.weight"]])
    speech_head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    speech = TorchEngine(config.speech_head, speech_shape, weights, SPEECH_STACK, speech_head, last_only=True)
    return assemble(config, options, backbone, speech, Projections(config, weights), sampler)


def _on_gpu(config: ModelConfig, options: EngineOptions) -> FrameLoop:
    from runtime.families.fun_audio_chat.build import build_overlap_loop  # not needed elsewhere, and slow to import
    from runtime.graphs.executor import gpu_device

    loop = build_overlap_loop(config, options, gpu_device(0))
    loop.prepare()
    return loop


def assemble(
    config: ModelConfig,
    options: EngineOptions,
    backbone: Engine,
    speech: Engine,
    projections: Projections,
    sampler: Sampler | None = None,
) -> FrameLoop:
    """Wires two engines of any kind with caches, scheduler and sampler."""
    group = config.speech_ids.group_size
    cache, speech_cache = KvCache(backbone.shape), KvCache(speech.shape)
    model = Lockstep((backbone, cache), (speech, speech_cache), projections, config.speech_ids)
    chosen = sampler or Sampler(group, device=projections.device)
    return FrameLoop(Scheduler(options.limits, cache, speech_cache, group), model, chosen)
