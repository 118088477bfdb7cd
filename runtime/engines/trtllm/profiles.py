"""What a decoder is compiled for. Plain data: no torch."""

from __future__ import annotations

from runtime.checkpoint.decoder import DecoderConfig
from runtime.engines.options import EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.engines.trtllm.spec import EngineProfile
from runtime.errors import BuildError


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
