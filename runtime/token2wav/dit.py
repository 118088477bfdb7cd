"""The velocity net of the flow: a diffusion transformer (DiT) with adaptive layer norms.

Written for export: no data-dependent control flow, and everything that time decides comes in as a
table of modulations. Parameter names are those of ``flow.pt``. Source: reference section 1.4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from runtime.token2wav.config import POSITION_GROUPS, FlowConfig

TIME_FEATURES = 256
TIME_SCALE = 1000.0
MAX_TIMESCALE = 10000.0
POSITION_KERNEL = 31
NORM_EPS = 1e-6
BLOCK_PARTS, FINAL_PARTS = 6, 2  # shift, scale, gate twice; scale, shift


class Block(nn.Module):
    """One transformer block: adaptive layer norms, attention, feed-forward."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim, inner = config.dim, config.inner
        self.heads = config.heads
        self.attn_norm = nn.ModuleDict({"linear": nn.Linear(dim, BLOCK_PARTS * dim)})
        self.attn = nn.ModuleDict(
            {
                "to_q": nn.Linear(dim, inner),
                "to_k": nn.Linear(dim, inner),
                "to_v": nn.Linear(dim, inner),
                "to_out": nn.ModuleList([nn.Linear(inner, dim)]),
            }
        )
        hidden = config.ff_mult * dim
        up = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"))
        self.ff = nn.ModuleDict({"ff": nn.Sequential(up, nn.Identity(), nn.Linear(hidden, dim))})

    @property
    def modulation(self) -> nn.Linear:
        """Time to shift, scale and gate of both halves."""
        return _linear(self.attn_norm)

    def forward(self, x: torch.Tensor, parts: torch.Tensor, rope: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [rows, T, dim]; parts [6, dim]; rope [2, T, head dim]; mask [rows, 1, T, T] additive."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts.unbind(0)
        normed = _norm(x) * (1 + scale_a) + shift_a
        q, k, v = (self._split(self.attn[name](normed)) for name in ("to_q", "to_k", "to_v"))
        q, k = _rotate_first_head(q, rope), _rotate_first_head(k, rope)
        weights = torch.softmax(q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + mask, dim=-1)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        x = x + gate_a * self.attn["to_out"][0](mixed)  # type: ignore[index]
        return x + gate_f * self.ff["ff"](_norm(x) * (1 + scale_f) + shift_f)

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Estimator(nn.Module):
    """The velocity net."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        dim = config.dim
        self.time_embed = nn.ModuleDict(
            {"time_mlp": nn.Sequential(nn.Linear(TIME_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim))}
        )
        convs = {
            f"conv{i}": nn.Sequential(nn.Conv1d(dim, dim, POSITION_KERNEL, groups=POSITION_GROUPS), nn.Mish())
            for i in (1, 2)
        }
        self.input_embed = nn.ModuleDict(
            {"proj": nn.Linear(4 * config.mel_bins, dim), "conv_pos_embed": nn.ModuleDict(convs)}
        )
        self.rotary_embed = nn.Module()
        self.rotary_embed.register_buffer("inv_freq", torch.zeros(config.head_dim // 2))
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm_out = nn.ModuleDict({"linear": nn.Linear(dim, FINAL_PARTS * dim)})
        self.proj_out = nn.Linear(dim, config.mel_bins)

    def blocks(self) -> list[Block]:
        """The transformer blocks, in order."""
        return [block for block in self.transformer_blocks if isinstance(block, Block)]

    def modulations(self, times: torch.Tensor) -> torch.Tensor:
        """Adaptive norm parts of every time [times, 6 * depth + 2, dim]: all that time decides."""
        half = TIME_FEATURES // 2
        step = math.log(MAX_TIMESCALE) / (half - 1)
        angles = TIME_SCALE * times[:, None] * torch.exp(-step * torch.arange(half))
        condition = F.silu(self.time_embed["time_mlp"](torch.cat([angles.sin(), angles.cos()], dim=-1)))
        linears = [*(block.modulation for block in self.blocks()), _linear(self.norm_out)]
        dim = self.proj_out.in_features
        return torch.cat([linear(condition).unflatten(-1, (-1, dim)) for linear in linears], dim=1)

    def embed(self, x: torch.Tensor, mu: torch.Tensor, speaker: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        """Noisy mel, condition, mu [rows, bins, T] and speaker [rows, bins] to rows [rows, T, dim]."""
        joined = torch.cat([x, cond, mu, speaker[:, :, None].expand_as(x)], dim=1).transpose(1, 2)
        h = self.input_embed["proj"](joined)
        position = h.transpose(1, 2)
        for conv in self.input_embed["conv_pos_embed"].values():  # type: ignore[operator]
            position = conv(F.pad(position, (POSITION_KERNEL - 1, 0)))
        return h + position.transpose(1, 2)

    def forward(
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        cond: torch.Tensor,
        parts: torch.Tensor,
        visible: torch.Tensor,
    ) -> torch.Tensor:
        """Velocity [rows, bins, T]; parts [6 * depth + 2, dim]; visible [rows, T, T] bool."""
        h = self.embed(x, mu, speaker, cond)
        steps = torch.arange(x.shape[2], device=x.device)
        angles = (steps[:, None] * self.rotary_embed.inv_freq).repeat_interleave(2, dim=-1)  # type: ignore[operator]
        rope = torch.stack([angles.cos(), angles.sin()])
        mask = torch.where(visible, 0.0, torch.finfo(x.dtype).min).to(x.dtype)[:, None]
        for i, block in enumerate(self.blocks()):
            h = block(h, parts[BLOCK_PARTS * i : BLOCK_PARTS * (i + 1)], rope, mask)
        scale, shift = parts[-FINAL_PARTS:].unbind(0)
        return self.proj_out(_norm(h) * (1 + scale) + shift).transpose(1, 2)


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def _rotate_first_head(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Rotary positions on head 0 only, in interleaved pairs: so the authors' code, and the weights, have it."""
    head = x[:, 0]
    turned = torch.stack([-head[..., 1::2], head[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([(head * rope[0] + turned * rope[1])[:, None], x[:, 1:]], dim=1)


def _linear(norm: nn.ModuleDict) -> nn.Linear:
    linear = norm["linear"]
    assert isinstance(linear, nn.Linear)
    return linear
