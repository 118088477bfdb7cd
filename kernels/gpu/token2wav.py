"""Euler step with guidance, and the snake activation. Twins: ``kernels.token2wav``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.token2wav import SNAKE_EPS

BLOCK = 1024


@triton.jit
def _guided_step(x, velocity, width, out, guidance, count, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    guided = tl.load(velocity + place, mask=inside, other=0.0).to(tl.float32)
    free = tl.load(velocity + count + place, mask=inside, other=0.0).to(tl.float32)
    step = tl.load(width) * ((1 + guidance) * guided - guidance * free)
    tl.store(out + place, tl.load(x + place, mask=inside, other=0.0) + step, mask=inside)


@triton.jit
def _snake(x, alpha, out, channels, length, eps, BLOCK: tl.constexpr):
    line = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = place < length
    a = tl.load(alpha + line % channels).to(tl.float32)
    value = tl.load(x + line * length + place, mask=inside, other=0.0).to(tl.float32)
    wave = tl.sin(a * value)
    tl.store(out + line * length + place, (value + wave * wave / (a + eps)).to(out.dtype.element_ty), mask=inside)


def guided_step(x: torch.Tensor, velocity: torch.Tensor, width: torch.Tensor, guidance: float) -> torch.Tensor:
    """See the twin."""
    x, velocity = x.contiguous(), velocity.contiguous()
    out, count = torch.empty_like(x), x.numel()
    _guided_step[(triton.cdiv(count, BLOCK),)](x, velocity, width, out, guidance, count, BLOCK=BLOCK)
    return out


def snake(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    x = x.contiguous()
    out = torch.empty_like(x)
    rows, channels, length = x.shape
    _snake[(rows * channels, triton.cdiv(length, BLOCK))](x, alpha, out, channels, length, SNAKE_EPS, BLOCK=BLOCK)
    return out
