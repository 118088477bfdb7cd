"""Weight-only quantised matrices: int8 or FP8 (e4m3) numbers with one scale per output. Plain torch twins.

Rows stay in the model's type. A few rows are bound by the bytes of the weights, which is half here; for many
rows (prefill) the weights are widened once and multiplied as usual.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from kernels.linear import Dense, Matrix

INT8_LARGEST, FP8_LARGEST = 127.0, 448.0  # of the formats
FEW_ROWS = 128  # up to here the fused product runs
QUANTISED_ROWS = 1024  # of a weight at a time: a float32 copy of a whole one would be twice as large as it
FP8_CAPABILITY = (8, 9)  # of CUDA devices: Ada and later
TINY = 1e-12  # a row of zeros has no scale of its own

Product = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def knows_fp8(device: torch.device) -> bool:
    """Whether kernels of this device can be given FP8; on a CPU the interpreter can."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= FP8_CAPABILITY


def scaled_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x [rows, in] times weight [out, in] times scale [out], summed in float32, in the type of x."""
    return (F.linear(x.float(), weight.float()) * scale).to(x.dtype)


@dataclass(frozen=True, slots=True)
class WeightOnly:
    """``weight`` [out, in] int8 or float8_e4m3fn; ``scale`` [out] float32; ``product`` multiplies few rows."""

    weight: torch.Tensor
    scale: torch.Tensor
    product: Product = scaled_product

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, in] to [rows, out]."""
        if len(x) <= FEW_ROWS:
            return self.product(x, self.weight, self.scale)
        # The scale stays float32: rounded it would be off by the same for all rows, and few rows have it whole.
        return (F.linear(x, self.weight.to(x.dtype)).float() * self.scale).to(x.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that a multiplication reads."""
        return self.weight.nbytes + self.scale.nbytes


def quantise(weight: torch.Tensor, dtype: torch.dtype, product: Product = scaled_product) -> WeightOnly:
    """The nearest numbers of ``dtype`` (int8 or float8_e4m3fn), each row scaled by its largest value."""
    numbers = torch.empty(weight.shape, dtype=dtype, device=weight.device)
    scale = torch.empty(len(weight), dtype=torch.float32, device=weight.device)
    parts = (tensor.split(QUANTISED_ROWS) for tensor in (weight, numbers, scale))
    for exact, mine, factors in zip(*parts, strict=True):
        _quantise_rows(exact.float(), mine, factors)
    return WeightOnly(numbers, scale, product)


def _quantise_rows(exact: torch.Tensor, numbers: torch.Tensor, scale: torch.Tensor) -> None:
    largest = INT8_LARGEST if numbers.dtype == torch.int8 else FP8_LARGEST
    scale.copy_(exact.abs().amax(dim=1).clamp(min=TINY) / largest)
    scaled = exact / scale[:, None]
    numbers.copy_(scaled.round() if numbers.dtype == torch.int8 else scaled)


def matrix_maker(linear: str, product: Product = scaled_product) -> Callable[[torch.Tensor], Matrix]:
    """What makes matrices for an option ``dense``, ``int8`` or ``fp8``. Raises ValueError for another one."""
    kinds = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
    if linear == "dense":
        return Dense
    if linear not in kinds:
        raise ValueError(f"linear: {linear!r} is not one of dense, {', '.join(kinds)}")
    return lambda weight: quantise(weight, kinds[linear], product)
