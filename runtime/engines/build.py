"""From a checkpoint to a ready frame loop on the torch engine."""

from __future__ import annotations

import torch

from runtime.checkpoint.config import DecoderConfig, ModelConfig
from runtime.checkpoint.layout import BACKBONE, CODEBOOK, SPEECH_STACK, backbone_shapes, speech_shapes
from runtime.checkpoint.weights import load_weights
from runtime.engines.base import EngineShape
from runtime.engines.options import EngineOptions
from runtime.engines.torch_engine import TorchEngine
from runtime.errors import BuildError
from runtime.frame_loop import FrameLoop
from runtime.kv_cache import KvCache
from runtime.lockstep import Lockstep
from runtime.models.speech_head import Projections
from runtime.sampling import Sampler
from runtime.scheduler import Scheduler


def engine_shape(decoder: DecoderConfig, options: EngineOptions, positions_per_token: int) -> EngineShape:
    """Sizes of one engine; the speech head has ``group_size`` positions per text token, the backbone one.

    Raises:
        BuildError: the checkpoint was not made for so many positions.
    """
    if options.max_positions * positions_per_token > decoder.max_positions:
        raise BuildError(
            "max_positions",
            f"{options.max_positions} x {positions_per_token} exceeds the {decoder.max_positions} of the checkpoint",
            "lower engine.max_positions in options.json",
        )
    chunk_rows = options.prefill_chunk * positions_per_token
    return EngineShape(
        hidden_size=decoder.hidden_size,
        num_layers=decoder.num_layers,
        num_kv_heads=decoder.num_kv_heads,
        head_dim=decoder.head_dim,
        max_batch_size=options.max_streams,
        max_num_tokens=chunk_rows + options.max_streams,
        max_seq_len=options.max_positions * positions_per_token,
        tokens_per_block=options.tokens_per_block,
        num_blocks=-(-options.kv_positions * positions_per_token // options.tokens_per_block),
    )


def build_frame_loop(config: ModelConfig, options: EngineOptions, sampler: Sampler | None = None) -> FrameLoop:
    """Loads backbone and speech head and wires caches, engines, scheduler and sampler.

    Raises:
        BuildError: a tensor is missing or mis-shaped.
    """
    group = config.speech_ids.group_size
    weights = load_weights(
        config.directory, backbone_shapes(config) | speech_shapes(config), getattr(torch, options.dtype)
    )
    shape = engine_shape(config.backbone, options, 1)
    speech_shape = engine_shape(config.speech_head, options, group)
    backbone = TorchEngine(config.backbone, shape, weights, BACKBONE, [weights["language_model.lm_head.weight"]])
    speech_head = [weights["audio_invert_tower.output_matching.weight"], weights[CODEBOOK]]
    speech = TorchEngine(config.speech_head, speech_shape, weights, SPEECH_STACK, speech_head, last_only=True)
    cache, speech_cache = KvCache(shape), KvCache(speech_shape)
    model = Lockstep((backbone, cache), (speech, speech_cache), Projections(config, weights), config.speech_ids)
    return FrameLoop(Scheduler(options.limits, cache, speech_cache, group), model, sampler or Sampler(group))
