"""RMSNorm with residual, SwiGLU, and q/k norm + rotary + cache write. Twins: ``kernels.decoder``.

One program per row (per row and head where heads are independent). Every rounding of the twins to the
model's type is repeated, so in 16 bit both agree to the last bit but for the order of sums.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.launch import Pool, check_power_of_two

SWIGLU_BLOCK = 1024


@triton.jit
def _add_rms_norm(x, delta, weight, residual, out, width, eps, ADD: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    kind = out.dtype.element_ty
    value = tl.load(x + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(delta + row * width + column, mask=inside, other=0.0).to(tl.float32)
        tl.store(residual + row * width + column, value.to(kind), mask=inside)
        value = value.to(kind).to(tl.float32)
    scale = tl.rsqrt(tl.sum(value * value, 0) / width + eps)
    normed = (value * scale).to(kind).to(tl.float32)
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (normed * gain).to(kind), mask=inside)


@triton.jit
def _swiglu(gate_up, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    gate = tl.load(gate_up + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    active = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(out + row * width + column, (active * up).to(kind), mask=inside)


@triton.jit(do_not_specialize=["layer", "table_width"])
def _rotate_and_store(
    mixed,
    norm,
    rope,
    memory,
    tables,
    slots,
    positions,
    out,
    layer,
    table_width,
    eps,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    DIM: tl.constexpr,
    TOKENS: tl.constexpr,
):
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    d = tl.arange(0, DIM)
    kind = out.dtype.element_ty
    position = tl.load(positions + row).to(tl.int64)
    line = mixed + (row * (HEADS + 2 * KV_HEADS) + head) * DIM
    value = tl.load(line + d)
    if head < HEADS + KV_HEADS:
        partner = (d + DIM // 2) % DIM
        exact = value.to(tl.float32)
        scale = tl.rsqrt(tl.sum(exact * exact, 0) / DIM + eps)
        gain = tl.load(norm + head * DIM + d).to(tl.float32)
        other_gain = tl.load(norm + head * DIM + partner).to(tl.float32)
        normed = ((exact * scale).to(kind).to(tl.float32) * gain).to(kind).to(tl.float32)
        other = (tl.load(line + partner).to(tl.float32) * scale).to(kind).to(tl.float32)
        other = (other * other_gain).to(kind).to(tl.float32)
        other = tl.where(d < DIM // 2, -other, other)
        cos = tl.load(rope + position * 2 * DIM + d).to(tl.float32)
        sin = tl.load(rope + position * 2 * DIM + DIM + d).to(tl.float32)
        value = ((normed * cos).to(kind).to(tl.float32) + other * sin).to(kind)
    if head < HEADS:
        tl.store(out + (row * HEADS + head) * DIM + d, value)
    else:
        which = (head - HEADS) // KV_HEADS  # 0: key, 1: value
        slot = tl.load(slots + row).to(tl.int64)
        entry = (slot * 2 + which) * table_width + position // TOKENS
        offset = tl.load(tables + entry).to(tl.int64) + 2 * layer
        place = (offset * KV_HEADS + (head - HEADS) % KV_HEADS) * TOKENS + position % TOKENS
        tl.store(memory + place * DIM + d, value)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """See the twin. x [rows, width]."""
    out = torch.empty_like(x)
    width = x.shape[-1]
    block = triton.next_power_of_2(width)
    _add_rms_norm[(len(x),)](x, x, weight, x, out, width, eps, ADD=False, BLOCK=block)
    return out


def add_rms_norm(
    x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See the twin."""
    residual, out = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    block = triton.next_power_of_2(width)
    _add_rms_norm[(len(x),)](x, delta, weight, residual, out, width, eps, ADD=True, BLOCK=block)
    return residual, out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    rows, width = len(gate_up), gate_up.shape[-1] // 2
    out = torch.empty(rows, width, dtype=gate_up.dtype, device=gate_up.device)
    _swiglu[(rows, triton.cdiv(width, SWIGLU_BLOCK))](gate_up, out, width, BLOCK=SWIGLU_BLOCK)
    return out


def rotate_and_store(
    mixed: torch.Tensor,
    norm: torch.Tensor,
    rope: torch.Tensor,
    pool: Pool,
    slots: torch.Tensor,
    positions: torch.Tensor,
    layer: int,
    eps: float,
) -> torch.Tensor:
    """See the twin."""
    kv_heads, tokens, dim = pool.memory.shape[3:]
    check_power_of_two("head size", dim)
    rows, heads = len(mixed), mixed.shape[1] - 2 * kv_heads
    out = torch.empty(rows, heads, dim, dtype=mixed.dtype, device=mixed.device)
    _rotate_and_store[(rows, heads + 2 * kv_heads)](
        mixed, norm, rope, pool.memory, pool.tables, slots, positions, out,
        layer, pool.tables.shape[2], eps,
        HEADS=heads, KV_HEADS=kv_heads, DIM=dim, TOKENS=tokens,
    )  # fmt: skip
    return out
