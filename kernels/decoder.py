"""The small operations between the matrices of a Qwen3 decoder: plain torch twins of the kernels.

They round where the reference rounds: norms in float32, their result in the model's type before the
weight, rotation product by product.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from kernels.paged_rows import Pool


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., width] over its last axis times weight, which broadcasts."""
    scaled = x.float()
    scaled = scaled * torch.rsqrt(scaled.square().mean(-1, keepdim=True) + eps)
    return weight * scaled.to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, delta: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The residual x + delta [rows, width] and its norm."""
    x = x + delta
    return x, rms_norm(x, weight, eps)


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """[rows, 2 * width] of gate, then up, to silu(gate) * up [rows, width]."""
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


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
    """Norms of queries and keys, rotary positions, and keys and values into the pool.

    Args:
        mixed: [rows, heads + 2 * KV heads, head size] of queries, keys, values.
        norm: [heads + KV heads, head size] weights of both norms.
        rope: [positions, 2, head size] cosines and sines in the model's type.
        slots: [rows] int32. positions: [rows] int32.

    Returns:
        Queries [rows, heads, head size].
    """
    kv_heads, tokens, dim = pool.memory.shape[3:]
    turned = mixed.shape[1] - kv_heads
    cos, sin = rope[positions.long()].unsqueeze(2).unbind(1)  # [rows, 1, head size] each
    qk = rms_norm(mixed[:, :turned], norm, eps)
    rotated = torch.cat([-qk[..., dim // 2 :], qk[..., : dim // 2]], dim=-1)
    qk = torch.addcmul(qk * cos, rotated, sin)
    kv = torch.stack([qk[:, -kv_heads:], mixed[:, turned:]], dim=1)  # [rows, 2, kv heads, head size]
    at = positions.long()
    offsets = pool.tables[slots.long(), :, at // tokens].long() + 2 * layer  # [rows, 2]
    lines = (offsets[:, :, None] * kv_heads + torch.arange(kv_heads, device=at.device)) * tokens
    lines = lines + (at % tokens)[:, None, None]
    pool.memory.view(-1, dim).index_copy_(0, lines.flatten(), kv.reshape(-1, dim))
    return qk[:, : turned - kv_heads].contiguous()
