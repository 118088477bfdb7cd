"""Matrices that rows are multiplied with. A matrix is anything that maps [rows, in] to [rows, out]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

Matrix = Callable[[torch.Tensor], torch.Tensor]
LEAST_ROWS = 4  # below it the CPU library sums in another order


def filled(x: torch.Tensor) -> torch.Tensor:
    """[rows, ...] to at least LEAST_ROWS of them, with zeros behind.

    A row of ``F.linear`` on a CPU is then the same to the last bit, whatever rows stand beside it. Measured for
    Intel's MKL with one thread per process and the variables of ``runtime.products``, which is how the ``cpu`` target
    runs; tests assert it.
    """
    missing = LEAST_ROWS - len(x)
    if missing <= 0 or x.is_cuda:
        return x
    return F.pad(x, (0, 0) * (x.dim() - 1) + (0, missing))


def product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``F.linear`` of [rows, in] with rows that do not depend on each other, see ``filled``."""
    return F.linear(filled(x), weight, bias)[: len(x)]


@dataclass(frozen=True, slots=True)
class Dense:
    """A matrix in the model's type: ``weight`` [out, in]."""

    weight: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out], rows as those of ``product``."""
        return product(x, self.weight)

    @property
    def nbytes(self) -> int:
        """Bytes that a multiplication reads."""
        return self.weight.nbytes
