"""Few rows times int8 or FP8 weights, widened on the way in. Twin: ``kernels.quantised.scaled_product``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

ROWS = 16  # rows of a tile, the least that a tensor core product takes
OUTPUTS, DEPTH = 32, 256  # of a tile; many narrow tiles keep all memory channels busy
WARPS, STAGES = 4, 4


@triton.jit
def _scaled_product(
    x,
    weight,
    scale,
    out,
    rows,
    outputs,
    depth,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    output = tl.program_id(1) * OUTPUTS + tl.arange(0, OUTPUTS)
    total = tl.zeros([ROWS, OUTPUTS], tl.float32)
    for start in range(0, depth, DEPTH):
        k = start + tl.arange(0, DEPTH)
        known = (k < depth)[None, :]
        left = tl.load(x + row[:, None] * depth + k[None, :], mask=(row < rows)[:, None] & known, other=0.0)
        places = output[:, None].to(tl.int64) * depth + k[None, :]
        right = tl.load(weight + places, mask=(output < outputs)[:, None] & known, other=0.0)
        total += tl.dot(left, tl.trans(right.to(left.dtype)), input_precision="ieee")
    total = total * tl.load(scale + output, mask=output < outputs, other=0.0)[None, :]
    inside = (row < rows)[:, None] & (output < outputs)[None, :]
    tl.store(out + row[:, None] * outputs + output[None, :], total.to(out.dtype.element_ty), mask=inside)


def scaled_product(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    x = x.contiguous()
    rows, (outputs, depth) = len(x), weight.shape
    out = torch.empty(rows, outputs, dtype=x.dtype, device=x.device)
    # The first axis runs fastest: all row tiles of a weight tile follow each other and find it in the L2 cache.
    grid = (triton.cdiv(rows, ROWS), triton.cdiv(outputs, OUTPUTS))
    _scaled_product[grid](
        x, weight, scale, out, rows, outputs, depth,
        ROWS=ROWS, OUTPUTS=OUTPUTS, DEPTH=DEPTH, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out
