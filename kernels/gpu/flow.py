"""Modulated layer norm with residual, and rotary with keys and values into blocks. Twins: ``kernels.flow``.

One program per frame (and per queries, keys, values): sums of a norm stay in registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.flow import GUIDANCE_ROWS

QUERY_KEY_VALUE = 3


@triton.jit
def _modulated_norm(x, delta, gate, scale, shift, residual, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(x + row * width + column, mask=inside, other=0.0)
    if ADD:
        more = tl.load(delta + row * width + column, mask=inside, other=0.0).to(tl.float32)
        value += tl.load(gate + column, mask=inside, other=0.0) * more
        tl.store(residual + row * width + column, value, mask=inside)
    centred = tl.where(inside, value - tl.sum(value, 0) / width, 0.0)
    normed = centred * tl.rsqrt(tl.sum(centred * centred, 0) / width + eps)
    gain = 1.0 + tl.load(scale + column, mask=inside, other=0.0)
    result = normed * gain + tl.load(shift + column, mask=inside, other=0.0)
    tl.store(out + row * width + column, result.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["streams", "length"])
def _pack_heads(
    mixed,
    rope,
    q,
    own,
    streams,
    length,
    scale,
    HEADS: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    FRAMES: tl.constexpr,
):
    line, which = tl.program_id(0).to(tl.int64), tl.program_id(1)  # which: 0 query, 1 key, 2 value
    row, t = line // length, line % length
    guide, stream = row // streams, row % streams
    h, d = tl.arange(0, HEADS_PAD)[:, None], tl.arange(0, DIM_PAD)[None, :]
    inside = (h < HEADS) & (d < DIM)
    source = mixed + (line * 3 + which) * HEADS * DIM + h * DIM
    value = tl.load(source + d, mask=inside, other=0.0)
    kind = value.dtype
    if which < 2:
        exact = value.to(tl.float32)
        partner = tl.load(source + (d ^ 1), mask=inside & (h == 0), other=0.0).to(tl.float32)
        partner = tl.where(d % 2 == 0, -partner, partner)
        turn = rope + (stream * length + t) * DIM + d
        cos = tl.load(turn, mask=d < DIM, other=0.0)
        sin = tl.load(turn + streams * length * DIM, mask=d < DIM, other=0.0)
        exact = tl.where(h == 0, exact * cos + partner * sin, exact)
        if which == 0:
            exact = exact * scale
        value = exact.to(kind)
    if which == 0:
        tl.store(q + line * HEADS * DIM + h * DIM + d, value, mask=inside)
    else:
        block = stream * (length // FRAMES) + t // FRAMES
        plane = ((block * 2 + guide) * 2 + which - 1) * HEADS + h
        tl.store(own + (plane * FRAMES + t % FRAMES) * DIM + d, value, mask=inside)


def modulated_norm(
    x: torch.Tensor,
    delta: torch.Tensor | None,
    gate: torch.Tensor | None,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the twin."""
    rows, width = x.shape
    add = delta is not None
    residual, out = torch.empty_like(x) if add else x, torch.empty_like(x, dtype=dtype)
    # Pointers must be given even where nothing is read.
    _modulated_norm[(rows,)](
        x, delta if add else x, gate if add else scale, scale, shift, residual, out, width, eps,
        ADD=add, BLOCK=triton.next_power_of_2(width),
    )  # fmt: skip
    return residual, out


def pack_heads(mixed: torch.Tensor, rope: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    _, streams, length, dim = rope.shape
    heads, frames = own.shape[3:5]
    q = torch.empty(GUIDANCE_ROWS * streams, length, heads, dim, dtype=mixed.dtype, device=mixed.device)
    _pack_heads[(len(mixed), QUERY_KEY_VALUE)](
        mixed, rope, q, own, streams, length, dim**-0.5,
        HEADS=heads, HEADS_PAD=triton.next_power_of_2(heads), DIM=dim, DIM_PAD=triton.next_power_of_2(dim),
        FRAMES=frames,
    )  # fmt: skip
    return q
