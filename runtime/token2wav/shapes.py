"""The range of every shape that the stages ask their graphs for: the optimisation profiles of compiled plans.

Follows from how the stages cut and batch, whatever tokens come: long chunks take several calls, so the
bounds hold for any request. The unbounded prefix of the demo server's policy is not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.token2wav.context import DECODER_LOOKAHEAD, OVERLAP, PITCH_LEFT, PITCH_LOOKAHEAD
from runtime.token2wav.flow_cache import block_shape, pool_blocks, tail_shape
from runtime.token2wav.flow_stage import CALL_BLOCKS
from runtime.token2wav.layout import Sizes
from runtime.token2wav.vocoder_stage import CALL_FRAMES

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest, usual and largest shape of one input."""

    low: Shape
    usual: Shape
    high: Shape

    def covers(self, shape: Shape) -> bool:
        """Whether a plan that is compiled for this range takes the shape."""
        return len(shape) == len(self.low) and all(
            low <= size <= high for low, size, high in zip(self.low, shape, self.high, strict=True)
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Smallest, usual and largest size of one axis."""

    low: int
    usual: int
    high: int


Profile = dict[str, Range]


def _ranges(axes: Mapping[str, tuple[int | Span, ...]]) -> Profile:
    def pick(sizes: tuple[int | Span, ...], name: str) -> Shape:
        return tuple(size if isinstance(size, int) else getattr(size, name) for size in sizes)

    return {name: Range(pick(sizes, "low"), pick(sizes, "usual"), pick(sizes, "high")) for name, sizes in axes.items()}


def front_profile(sizes: Sizes, rows: int) -> Profile:
    """Of the graph from tokens to conditioning; ``rows``: most chunks of a call."""
    around, per_token = sizes.lookbehind + sizes.lookahead, sizes.frames_per_token
    most = CALL_BLOCKS * sizes.block_frames // per_token
    row = Span(1, rows, rows)
    columns = Span(around + 1, around + sizes.block_tokens, around + most)
    return _ranges({"tokens": (row, columns), "valid": (row, columns), "embedding": (row, sizes.speaker_dim)})


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
    return _ranges(axes)


def vocoder_profile(sizes: Sizes, rows: int) -> Profile:
    """Of the vocoder."""
    row, left, step = Span(1, rows, rows), sizes.vocoder_left, sizes.frames_per_token
    # From the window's first frame: one frame is decoded beyond those that are given, to overlap with the next.
    decoded = Span(step, left + sizes.block_frames + OVERLAP, left + CALL_FRAMES + OVERLAP)
    source = Span(decoded.low, decoded.usual + DECODER_LOOKAHEAD, decoded.high + DECODER_LOOKAHEAD)
    pitch = Span(
        source.low + PITCH_LOOKAHEAD,
        source.usual + PITCH_LEFT + PITCH_LOOKAHEAD,
        source.high + PITCH_LEFT + PITCH_LOOKAHEAD,
    )
    mel = Span(*(size + DECODER_LOOKAHEAD for size in (decoded.low, decoded.usual, decoded.high)))
    samples = Span(*(size * sizes.frame_samples for size in (source.low, source.usual, source.high)))
    return _ranges(
        {
            "mel_pitch": (row, sizes.mel_bins, pitch),
            "mel": (row, sizes.mel_bins, mel),
            "turns": (row, sizes.harmonics),
            "noise": (row, samples, sizes.harmonics),
            **{name: (row,) for name in ("lead", "frames", "source_frames")},
        }
    )
