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
FEW_ROWS = 64  # up to here the fused product runs
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
        return F.linear(x, self.weight.to(x.dtype)) * self.scale.to(x.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that a multiplication reads."""
        return self.weight.nbytes + self.scale.nbytes


def quantise(weight: torch.Tensor, dtype: torch.dtype, product: Product = scaled_product) -> WeightOnly:
    """The nearest numbers of ``dtype`` (int8 or float8_e4m3fn), each row scaled by its largest value."""
    largest = INT8_LARGEST if dtype == torch.int8 else FP8_LARGEST
    exact = weight.float()
    scale = exact.abs().amax(dim=1).clamp(min=TINY) / largest
    numbers = exact / scale[:, None]
    return WeightOnly((numbers.round() if dtype == torch.int8 else numbers).to(dtype), scale, product)


def matrix_maker(linear: str, product: Product = scaled_product) -> Callable[[torch.Tensor], Matrix]:
    """What makes matrices for an option ``dense``, ``int8`` or ``fp8``. Raises ValueError for another one."""
    kinds = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
    if linear == "dense":
        return Dense
    if linear not in kinds:
        raise ValueError(f"linear: {linear!r} is not one of dense, {', '.join(kinds)}")
    return lambda weight: quantise(weight, kinds[linear], product)
