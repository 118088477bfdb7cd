"""Limits of a checkpoint that a server checks when it starts, applied when the options are chosen."""

from __future__ import annotations

from runtime.checkpoint.config import ModelConfig
from runtime.engines.options import EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.errors import BuildError


def most_positions(config: ModelConfig, wanted: int) -> int:
    """Positions of a conversation: as many as wanted, or as the checkpoint was made for."""
    group = config.speech_ids.group_size
    return max(1, min(wanted, config.backbone.max_positions, config.speech_head.max_positions // group))


def check_limits(config: ModelConfig, options: EngineOptions) -> None:
    """Raises BuildError for options with which the server would refuse to start."""
    try:
        for decoder, positions in ((config.backbone, 1), (config.speech_head, config.speech_ids.group_size)):
            engine_shape(decoder, options, positions)
    except BuildError as error:
        raise BuildError(error.field, error.problem, "lower engine.max_positions") from None
    try:
        _ = options.limits
    except ValueError as error:
        raise BuildError("set engine", str(error), "correct the value") from None
