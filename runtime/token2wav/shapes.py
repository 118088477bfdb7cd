"""The range of every shape that the stages ask their graphs for: the optimisation profiles of compiled plans.

Follows from how the stages cut and batch, whatever tokens come: long chunks take several calls, so the
bounds hold for any request. The unbounded prefix of the demo server's policy is not covered.
"""

from __future__ import annotations

from runtime.graphs.shapes import Profile, Span, profile_of
from runtime.token2wav.flow.cache import block_shape, pool_blocks, tail_shape
from runtime.token2wav.flow.stage import CALL_BLOCKS
from runtime.token2wav.layout import Sizes
from runtime.token2wav.vocoder.context import DECODER_LOOKAHEAD, OVERLAP, PITCH_LEFT, PITCH_LOOKAHEAD
from runtime.token2wav.vocoder.stage import CALL_FRAMES


def front_profile(sizes: Sizes, rows: int) -> Profile:
    """Of the graph from tokens to conditioning; ``rows``: most chunks of a call."""
    around, per_token = sizes.lookbehind + sizes.lookahead, sizes.frames_per_token
    most = CALL_BLOCKS * sizes.block_frames // per_token
    row = Span(1, rows, rows)
    columns = Span(around + 1, around + sizes.block_tokens, around + most)
    return profile_of({"tokens": (row, columns), "valid": (row, columns), "embedding": (row, sizes.speaker_dim)})


def step_profile(sizes: Sizes, rows: int, streams: int, window: int) -> Profile:
    """Of one Euler step; ``streams``: most with state; ``window``: blocks that a frame sees before its own."""
    row = Span(1, rows, rows)
    length = Span(sizes.frames_per_token, sizes.block_frames, CALL_BLOCKS * sizes.block_frames)
    slots = Span(1, max(1, window), max(1, window))
    axes: dict[str, tuple[int | Span, ...]] = {
        "x": (row, sizes.mel_bins, length),
        "mu": (row, sizes.mel_bins, length),
        "speaker": (row, sizes.mel_bins),
        **{name: (row,) for name in ("first", "frames", "kept")},
        **{name: (1,) for name in ("block", "window", "step")},
        "tails": (row, *tail_shape(sizes)[1:]),
        "tables": (row, slots),
        "table_blocks": (row, slots),
        **{f"caches_{i}": (pool_blocks(streams, window), *block_shape(sizes)) for i in range(sizes.depth)},
    }
    return profile_of(axes)


def vocoder_profile(sizes: Sizes, rows: int) -> Profile:
    """Of the vocoder."""
    row, left = Span(1, rows, rows), sizes.vocoder_left
    # From the window's first frame: one frame is decoded beyond those that are given, to overlap with the next.
    decoded = Span(sizes.frames_per_token, left + sizes.block_frames + OVERLAP, left + CALL_FRAMES + OVERLAP)
    # At the end of a stream the source is no longer than what is decoded, and there may be nothing to its left.
    source = Span(decoded.low, decoded.usual + DECODER_LOOKAHEAD, decoded.high + DECODER_LOOKAHEAD)
    pitch = Span(source.low, source.usual + PITCH_LEFT, source.high + PITCH_LEFT)
    axes: dict[str, tuple[int | Span, ...]] = {
        "mel_pitch": (row, sizes.mel_bins, pitch + PITCH_LOOKAHEAD),
        "mel": (row, sizes.mel_bins, decoded + DECODER_LOOKAHEAD),
        "turns": (row, sizes.harmonics),
        "noise": (row, source * sizes.frame_samples, sizes.harmonics),
        **{name: (row,) for name in ("lead", "frames", "source_frames")},
    }
    return profile_of(axes)
