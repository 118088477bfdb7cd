"""Limits that a server checks when it starts, applied when the options are chosen."""

from __future__ import annotations

import numpy as np

from builders.opening import PROBE_S, Inputs
from builders.sound_sizes import sizes_of
from runtime.checkpoint.files import reason
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import CPU, EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.errors import BuildError, InvalidRequest
from runtime.families.fun_audio_chat.config import ModelConfig, cache_specs
from runtime.frontend.audio import to_model_rate
from runtime.frontend.mel import position_hz
from runtime.graphs.memory import HostMemory
from runtime.manifest import PACKAGE_ROOT, REPOSITORY
from runtime.options import Options
from runtime.scheduling.caches import Cache
from runtime.scheduling.scheduler import Limits, Scheduler
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.cache import FlowCache
from runtime.token2wav.options import Token2WavOptions

WARMUP_TOKENS = PACKAGE_ROOT / REPOSITORY / "fun_audio_chat" / "warmup" / "warmup_tokens"  # little-endian int32


def most_positions(config: ModelConfig, wanted: int) -> int:
    """Positions of a conversation: as many as wanted, or as the checkpoint was made for."""
    group = config.speech_ids.group_size
    return max(1, min(wanted, config.backbone.max_positions, config.speech_head.max_positions // group))


def check_limits(opened: Inputs, options: Options) -> None:
    """Makes what the server makes of the options besides its nets.

    Raises:
        BuildError: it would refuse to start with them; names the option.
    """
    config = opened.config
    check_question(opened, options.engine.max_positions)
    _check_request(config, options)
    _check_engine(config, options.engine)
    if options.target == CPU:  # elsewhere these caches lie on the GPU
        _check_sound(opened.sound, options.token2wav)


def check_question(opened: Inputs, positions: int) -> None:
    """Raises BuildError when a conversation of so many positions has no room for what a server asks when it starts."""
    answer = int.from_bytes(WARMUP_TOKENS.read_bytes(), "little")
    if opened.question + answer > positions:
        problem = f"{positions} are too few for a question of {opened.question} and an answer of {answer}"
        remedy = "raise it, or give a checkpoint with a larger max_position_embeddings"
        raise BuildError("engine.max_positions", problem, remedy)


def _check_request(config: ModelConfig, options: Options) -> None:
    """The bounds of requests let the question pass that a server asks when it starts."""
    features, hz = config.features, position_hz(config.speech_ids.group_size)
    limits = options.limits.for_model(options.engine.max_positions, hz, float(features.seconds))
    sound = np.zeros(PROBE_S * features.sample_rate, np.float32)
    try:
        limits.check({"audio": sound}, features.sample_rate, "")
        to_model_rate([sound], features.sample_rate, features, limits.clip_s)
    except InvalidRequest as error:
        problem = f"the server could not ask its first question: {error.field}: {error.problem}"
        raise BuildError("set limits", problem, "raise the limit") from None


def _check_engine(config: ModelConfig, options: EngineOptions) -> None:
    group = config.speech_ids.group_size
    try:
        backbone, speech = engine_shape(config.backbone, options, 1), engine_shape(config.speech_head, options, group)
    except BuildError as error:
        raise BuildError(f"set engine.{error.field}", error.problem, "lower it, or leave it out") from None
    try:
        caches = zip(cache_specs(config), (KvCache(backbone), KvCache(speech)), strict=True)
        Scheduler(Limits.of(options), [Cache(spec, kv) for spec, kv in caches])
    except (ValueError, AssertionError, MemoryError) as error:
        raise BuildError("set engine", reason(error), "correct the value") from None


def _check_sound(sound: Token2WavConfig, options: Token2WavOptions) -> None:
    window = 0 if options.full_attention else options.window
    try:
        FlowCache(sizes_of(sound, ()), options.max_streams, window, np.dtype(options.precision).name, HostMemory())
    except (ValueError, MemoryError) as error:
        problem = f"max_streams {options.max_streams}, window {options.window}: {reason(error)}"
        raise BuildError("set token2wav", problem, "lower one of them") from None
