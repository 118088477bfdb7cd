"""Sizes of an engine from its decoder and the options. Plain data: no torch."""

from __future__ import annotations

from runtime.checkpoint.decoder import DecoderConfig
from runtime.engines.base import EngineShape
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.spec import EngineProfile
from runtime.errors import BuildError


def engine_shape(decoder: DecoderConfig, options: EngineOptions, positions_per_token: int) -> EngineShape:
    """Sizes of one engine with so many positions for each text token.

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


def engine_profile(
    decoder: DecoderConfig, options: EngineOptions, positions: int, hidden_states: bool
) -> EngineProfile:
    """What an engine is compiled for, with or without the hidden states of all rows. Raises BuildError."""
    shape = engine_shape(decoder, options, positions)
    try:
        return EngineProfile(
            shape=shape,
            output_size=decoder.output_size,
            dtype=options.dtype,
            max_input_len=min(options.prefill_chunk * positions, shape.max_seq_len),
            # Nearly all steps are generation steps: one row of every stream.
            opt_num_tokens=shape.max_batch_size,
            hidden_states=hidden_states,
        )
    except ValueError as error:
        raise BuildError("engine options", str(error), "correct the profile or options.json") from None
