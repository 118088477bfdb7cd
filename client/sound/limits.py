"""Bounds of the sound of a question. They are checked before memory is taken for it."""

from __future__ import annotations

import numpy as np

from ..protocol.requests import HIGHEST_RATE, LOUDEST, LOWEST_RATE

SHORTEST_S = 0.04  # one frame of the speech encoder, which makes nothing of less
LONGEST_S = 300.0  # of a clip; the extractor of the model takes no more
FILE_RATES = range(1_000, 1_000_001)  # of a file that is resampled here
MOST_FILE_BYTES = 512 * 2**20  # more than 300 s of 24-bit stereo at 192 kHz
HUGE = 2**63  # more is not written out
MOST_SAMPLE_BYTES = 2**30  # of all channels of a file as float32


class SoundError(ValueError):
    """Says what is wrong with some sound and what to do about it; callers add which sound it is."""


def check_length(samples: int, rate: float) -> None:
    """Raises SoundError for a clip that is too long, empty, or too short to hold anything for the model."""
    seconds = samples / rate
    if seconds > LONGEST_S:
        raise SoundError(f"lasts longer than {LONGEST_S:g} s; cut it into several questions")
    if not samples:
        raise SoundError("holds no samples; record it again")
    if seconds < SHORTEST_S:
        raise SoundError(f"lasts {1000 * seconds:.2g} ms, of which the model hears nothing; "
                         f"send at least {1000 * SHORTEST_S:g} ms")  # fmt: skip


def check_samples(samples: np.ndarray) -> None:
    """Raises SoundError for samples that are no numbers, or that were never scaled to [-1, 1]."""
    if not np.isfinite(samples).all():
        raise SoundError("holds NaN or infinite samples; send finite samples in [-1, 1]")
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > LOUDEST:
        raise SoundError(f"holds float samples up to {peak:.5g}, which are not in [-1, 1]; divide them by the full "
                         "scale (32768 where they were 16 bits), or use int16")  # fmt: skip


def check_rate(rate: int) -> None:
    """Raises SoundError for a rate that the server refuses."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        given = f"{rate:.6g}" if abs(rate) < HUGE else "far too many"
        raise SoundError(f"has {given} samples per second; the server takes {LOWEST_RATE} to {HIGHEST_RATE}, "
                         "resample it (--sampling-rate 48000)")  # fmt: skip
