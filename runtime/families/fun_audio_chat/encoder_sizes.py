"""Sizes that the encoder is recorded for on a device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from runtime.graphs.recorded import Arrays, Shapes
from runtime.graphs.recorded_sizes import power_of_two, powers_down
from runtime.graphs.shapes import Profile


def encoder_rule(shapes: Shapes) -> Shapes:
    """Windows rounded up to a power of two."""
    return {name: (power_of_two(shape[0]), *shape[1:]) for name, shape in shapes.items()}


def encoder_calls(profile: Profile) -> Iterator[Arrays]:
    """One call of the encoder for every number of windows that ``encoder_rule`` gives."""
    most, bins, frames = profile["mel"].high
    for rows in powers_down(most):
        ones = np.ones(rows, np.int64)
        yield {"mel": np.zeros((rows, bins, frames), np.float32), "frames": ones, "keep": ones}
