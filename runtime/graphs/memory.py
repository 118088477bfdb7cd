"""Where the arrays of a stage live between its graphs: in numpy on the host, or in torch on a device.

Stages keep states, stack rows and cut slices the same way in both; only these few operations differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:  # stages on the host need no torch
    import torch

Array = Any  # np.ndarray or torch.Tensor


class Memory(Protocol):
    """Arrays of one place."""

    def zeros(self, shape: Sequence[int], dtype: str) -> Array:
        """An array of zeros; ``dtype`` is the name that numpy and torch share."""

    def stack(self, rows: Sequence[Array]) -> Array:
        """Rows of this place as one array."""

    def put(self, array: np.ndarray) -> Array:
        """Brings an array here."""

    def take(self, array: Array) -> np.ndarray:
        """Brings an array to the host; waits until it is computed."""


class HostMemory:
    """numpy. Zeros are not touched, so large pools take memory as they are first used."""

    def zeros(self, shape: Sequence[int], dtype: str) -> np.ndarray:
        return np.zeros(shape, np.dtype(dtype))

    def stack(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(rows)

    def put(self, array: np.ndarray) -> np.ndarray:
        return array

    def take(self, array: np.ndarray) -> np.ndarray:
        return array


class TorchMemory:
    """torch, on a device such as ``cuda:1``; copies are queued on its current stream."""

    def __init__(self, device: str) -> None:
        import torch  # late: see above

        self._torch, self.device = torch, torch.device(device)

    def zeros(self, shape: Sequence[int], dtype: str) -> torch.Tensor:
        return self._torch.zeros(tuple(shape), dtype=getattr(self._torch, dtype), device=self.device)

    def stack(self, rows: Sequence[torch.Tensor]) -> torch.Tensor:
        return self._torch.stack(list(rows))

    def put(self, array: np.ndarray) -> torch.Tensor:
        return self._torch.tensor(array, device=self.device)  # a copy: the caller's array may change

    def take(self, array: torch.Tensor) -> np.ndarray:
        return array.cpu().numpy()
