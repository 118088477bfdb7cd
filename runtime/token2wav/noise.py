"""Windows of a stored noise buffer. What is in it: ``noise_recipe``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Windows(Protocol):
    """Noise of many rows at once, where a graph takes it."""

    def windows(self, begins: Sequence[int], span: int) -> Any:
        """[rows, span, ...]: ``span`` entries of every row from its begin on."""


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

    def windows(self, begins: Sequence[int], span: int) -> np.ndarray:
        return np.stack([self.window(begin, begin + span) for begin in begins])

    @property
    def length(self) -> int:
        """Entries along the time axis."""
        return int(self._buffer.shape[self._axis])
