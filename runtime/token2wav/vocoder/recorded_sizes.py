"""Sizes that the vocoder is recorded for on a device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from runtime.graphs.recorded import Arrays, Rule, Shapes
from runtime.graphs.recorded_sizes import power_of_two, powers_down
from runtime.graphs.shapes import Profile
from runtime.token2wav.vocoder.context import DECODER_LOOKAHEAD, PITCH_LEFT, PITCH_LOOKAHEAD

FRAME_STEP = 16  # mel frames of the smallest window


def window_frames(frames: int) -> int:
    """The next of 16, 32, 48, 64, 96, 128, 192, 256, ... frames: at most half as many again."""
    power = max(FRAME_STEP, power_of_two(frames))
    smaller = power // 4 * 3
    return smaller if frames <= smaller and smaller % FRAME_STEP == 0 else power


def windows_down(most: int) -> list[int]:
    """All window sizes up to the one that holds ``most`` frames, the largest first."""
    return sorted({window_frames(frames) for frames in range(1, most + 1)}, reverse=True)


def vocoder_rule(frame_samples: int) -> Rule:
    """Rows rounded up to a power of two, windows as ``window_frames`` says of their source.

    Mel and pitch windows follow from the source's: it is the longest of the three in every call.
    """

    def rule(shapes: Shapes) -> Shapes:
        rows, frames = power_of_two(shapes["mel"][0]), window_frames(-(-shapes["noise"][1] // frame_samples))
        bins, harmonics = shapes["mel"][1], shapes["noise"][2]
        return {
            **{name: (rows, *shape[1:]) for name, shape in shapes.items()},
            "mel_pitch": (rows, bins, frames + PITCH_LEFT + PITCH_LOOKAHEAD),
            "mel": (rows, bins, frames + DECODER_LOOKAHEAD),
            "noise": (rows, frames * frame_samples, harmonics),
        }

    return rule


def vocoder_calls(profile: Profile, frame_samples: int) -> Iterator[Arrays]:
    """One call of the vocoder for every size that ``vocoder_rule`` gives."""
    most, samples, harmonics = profile["noise"].high
    bins = profile["mel"].high[1]
    for frames in windows_down(samples // frame_samples):
        for rows in powers_down(most):
            mel, ones = np.zeros((rows, bins, frames), np.float32), np.ones(rows, np.int64)
            yield {
                "mel_pitch": mel,
                "mel": mel,
                "turns": np.zeros((rows, harmonics), np.float32),
                "noise": np.zeros((rows, frames * frame_samples, harmonics), np.float32),
                "lead": ones - 1,
                "frames": ones,
                "source_frames": ones,
            }
