"""Few rows times a matrix, with norm, SwiGLU and residual in the same launch. Twin: ``kernels.fused``.

The norm's factor is the same for a whole row, so it is applied to the sums: one pass over the row serves
norm and product. Weights may be of the model's type, int8 or FP8.

A program sums the whole depth of its outputs, in one order whatever rows there are. A matrix of few outputs is
cut into narrower, deeper tiles instead of along its depth: joining parts would take another launch, which lasts
about as long as reading the 4 to 6 MB of such a matrix.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.linear import Matrix

ROWS = 16  # of a tile: the least that a tensor core product takes
OUTPUTS, DEPTH = 16, 256  # of a tile
FEW_PROGRAMS = 128  # fewer than these leave processors idle (an A100 has 108, an H100 132): tiles become narrow
NARROW_OUTPUTS = 8  # of a narrow tile, the least that a tensor core product takes: 128 programs of 1024 outputs
NARROW_BYTES = 1024  # of a row in a narrow tile: as many bytes of the matrix on their way at once
WARPS, STAGES = 4, 4


@triton.jit
def _fused_linear(
    x,
    weight,
    scale,
    gain,
    residual,
    out,
    rows,
    outputs,
    depth,
    eps,
    SCALED: tl.constexpr,
    NORM: tl.constexpr,
    RESIDUAL: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    row = tl.arange(0, ROWS)
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    real = (output < outputs)[:, None]
    kind = out.dtype.element_ty
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    up_total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH)
        known = (k < depth)[None, :]
        left = tl.load(x + row[:, None] * depth + k[None, :], mask=(row < rows)[:, None] & known, other=0.0)
        if NORM:
            exact = left.to(tl.float32)
            squares += tl.sum(exact * exact, 1)
            left = (exact * tl.load(gain + k, mask=k < depth, other=0.0).to(tl.float32)[None, :]).to(kind)
        places = output[:, None].to(tl.int64) * depth + k[None, :]
        right = tl.load(weight + places, mask=real & known, other=0.0).to(kind)
        total += tl.dot(left, tl.trans(right), input_precision="ieee")
        if GATED:
            right = tl.load(weight + (places + outputs * depth), mask=real & known, other=0.0).to(kind)
            up_total += tl.dot(left, tl.trans(right), input_precision="ieee")
    if NORM:
        factor = tl.rsqrt(squares / depth + eps)[:, None]
        total, up_total = total * factor, up_total * factor
    if SCALED:
        total = total * tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
    value = total.to(kind).to(tl.float32)
    if GATED:
        if SCALED:
            up_total = up_total * tl.load(scale + outputs + output, mask=output < outputs, other=0.0)[None, :]
        value = (value / (1.0 + tl.exp(-value))).to(kind).to(tl.float32) * up_total.to(kind).to(tl.float32)
    inside = (row < rows)[:, None] & (output < outputs)[None, :]
    where = row[:, None] * outputs + output[None, :]
    if RESIDUAL:
        value = tl.load(residual + where, mask=inside, other=0.0).to(tl.float32) + value.to(kind).to(tl.float32)
    tl.store(out + where, value.to(kind), mask=inside)


def tile_for(outputs: int, itemsize: int) -> tuple[int, int]:
    """Outputs and depth of a tile of a matrix of so many outputs; ``itemsize`` is that of the rows."""
    if triton.cdiv(outputs, OUTPUTS) >= FEW_PROGRAMS:
        return OUTPUTS, DEPTH
    return NARROW_OUTPUTS, NARROW_BYTES // itemsize


def fused_linear(
    x: torch.Tensor,
    matrix: Matrix,
    gain: torch.Tensor | None = None,
    eps: float = 0.0,
    residual: torch.Tensor | None = None,
    gated: bool = False,
) -> torch.Tensor:
    """See the twin. ``matrix`` is a ``Dense`` or a ``WeightOnly``; at most ``FUSED_ROWS`` rows."""
    stored: Any = matrix
    weight, scale = stored.weight, getattr(stored, "scale", None)
    rows, depth = x.shape
    outputs = len(weight) // 2 if gated else len(weight)
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    across, deep = tile_for(outputs, x.element_size())
    # Pointers must be given even where nothing is read.
    _fused_linear[(triton.cdiv(outputs, across),)](
        x, weight, x if scale is None else scale, x if gain is None else gain,
        x if residual is None else residual, out, rows, outputs, depth, eps,
        SCALED=scale is not None, NORM=gain is not None, RESIDUAL=residual is not None, GATED=gated,
        ROWS=ROWS, OUTPUTS=across, DEPTH=deep, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
