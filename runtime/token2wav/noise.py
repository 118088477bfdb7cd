"""Windows of a stored noise buffer. What is in it: ``noise_recipe``."""

from __future__ import annotations

from pathlib import Path

import numpy as np


class Noise:
    """Windows of a noise buffer whose time axis wraps."""

    def __init__(self, path: Path, axis: int) -> None:
        self._buffer = np.load(path, mmap_mode="r")
        self._axis = axis

    def window(self, begin: int, end: int) -> np.ndarray:
        """Entries ``begin .. end - 1`` along the time axis."""
        length = self._buffer.shape[self._axis]
        if end <= length:
            index: list[slice] = [slice(None)] * self._buffer.ndim
            index[self._axis] = slice(begin, end)
            return np.asarray(self._buffer[tuple(index)])
        return np.take(self._buffer, np.arange(begin, end) % length, axis=self._axis)
