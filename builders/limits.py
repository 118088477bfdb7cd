"""Limits that a server checks when it starts, applied when the options are chosen."""

from __future__ import annotations

import numpy as np

from runtime.checkpoint.config import ModelConfig
from runtime.checkpoint.files import reason
from runtime.engines.options import EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.errors import BuildError
from runtime.kv_cache import KvCache
from runtime.memory import HostMemory
from runtime.options import CPU, Options, Token2WavOptions
from runtime.scheduler import Scheduler
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow_cache import FlowCache
from runtime.token2wav.sizes import sizes_of


def most_positions(config: ModelConfig, wanted: int) -> int:
    """Positions of a conversation: as many as wanted, or as the checkpoint was made for."""
    group = config.speech_ids.group_size
    return max(1, min(wanted, config.backbone.max_positions, config.speech_head.max_positions // group))


def check_limits(config: ModelConfig, sound: Token2WavConfig, options: Options) -> None:
    """Makes what the server makes of the options besides its nets.

    Raises:
        BuildError: it would refuse to start with them; names the option.
    """
    _check_engine(config, options.engine)
    if options.target == CPU:  # elsewhere these caches lie on the GPU
        _check_sound(sound, options.token2wav)


def _check_engine(config: ModelConfig, options: EngineOptions) -> None:
    group = config.speech_ids.group_size
    try:
        backbone, speech = engine_shape(config.backbone, options, 1), engine_shape(config.speech_head, options, group)
    except BuildError as error:
        raise BuildError(f"set engine.{error.field}", error.problem, "lower it, or leave it out") from None
    try:
        Scheduler(options.limits, KvCache(backbone), KvCache(speech), group)
    except (ValueError, AssertionError, MemoryError) as error:
        raise BuildError("set engine", reason(error), "correct the value") from None


def _check_sound(sound: Token2WavConfig, options: Token2WavOptions) -> None:
    window = 0 if options.full_attention else options.window
    try:
        FlowCache(sizes_of(sound, ()), options.max_streams, window, np.dtype(options.precision).name, HostMemory())
    except (ValueError, MemoryError) as error:
        problem = f"max_streams {options.max_streams}, window {options.window}: {reason(error)}"
        raise BuildError("set token2wav", problem, "lower one of them") from None
