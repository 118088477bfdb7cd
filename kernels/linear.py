"""Matrices that rows are multiplied with. A matrix is anything that maps [rows, in] to [rows, out]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Matrix = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Dense:
    """A matrix in the model's type: ``weight`` [out, in]."""

    weight: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out]."""
        return F.linear(x, self.weight)

    @property
    def nbytes(self) -> int:
        """Bytes that a multiplication reads."""
        return self.weight.nbytes
