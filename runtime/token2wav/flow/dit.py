"""The velocity net of the flow: a diffusion transformer (DiT) with adaptive layer norms.

Written for export: no data-dependent control flow, everything that time decides comes in as a table
of modulations, everything that earlier frames decide as caches. Parameter names are those of
``flow.pt``. Source: reference section 1.4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from runtime.token2wav.config import POSITION_GROUPS, POSITION_KERNEL, FlowConfig
from runtime.token2wav.flow.past import Past, carry, rotary

TIME_FEATURES = 256
TIME_SCALE = 1000.0
MAX_TIMESCALE = 10000.0
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

    def forward(
        self, x: torch.Tensor, parts: torch.Tensor, rope: torch.Tensor, mask: torch.Tensor, cached: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next x, and the new keys and values [rows, 2, heads, T, head dim].

        Products and caches have the type of the weights; norms, softmax and residuals are float32.

        Args:
            x: [rows, T, dim] float32.
            parts: [6, dim].
            rope: [2, rows, T, head dim].
            mask: [rows, 1, T, K + T] additive.
            cached: [rows, 2, heads, K, head dim].
        """
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts.unbind(0)
        low = cached.dtype
        normed = (_norm(x) * (1 + scale_a) + shift_a).to(low)
        q, k, v = (self._split(self.attn[name](normed)) for name in ("to_q", "to_k", "to_v"))
        q = (_rotate_first_head(q.float(), rope) * (q.shape[-1] ** -0.5)).to(low)
        new = torch.stack([_rotate_first_head(k.float(), rope).to(low), v], dim=1)
        keys, values = torch.cat([cached, new], dim=3).unbind(1)
        weights = torch.softmax((q @ keys.transpose(-1, -2)).float() + mask, dim=-1).to(low)
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        x = x + gate_a * self.attn["to_out"][0](mixed).float()  # type: ignore[index]
        x = x + gate_f * self._feed_forward((_norm(x) * (1 + scale_f) + shift_f).to(low))
        return x, new

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        up, down = self.ff["ff"][0], self.ff["ff"][2]  # type: ignore[index]
        return down(up[1](up[0](x).float()).to(x.dtype)).float()

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

    def embed(
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        cond: torch.Tensor,
        earlier: torch.Tensor,
        kept: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Noisy mel, condition, mu [rows, bins, T] and speaker [rows, bins] to rows [rows, T, dim] and new tails.

        ``earlier`` and ``kept`` are ``Past.tails`` and ``Past.kept``.
        """
        joined = torch.cat([x, cond, mu, speaker[:, :, None].expand_as(x)], dim=1).transpose(1, 2)
        h = self.input_embed["proj"](joined)
        position, tails = h.transpose(1, 2), []
        for i, conv in enumerate(self.input_embed["conv_pos_embed"].values()):  # type: ignore[operator]
            extended = torch.cat([earlier[:, i], position], dim=2)
            tails.append(carry(extended, kept, POSITION_KERNEL - 1))
            position = conv(extended)
        return h + position.transpose(1, 2), torch.stack(tails, dim=1)

    def forward(
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        cond: torch.Tensor,
        parts: torch.Tensor,
        past: Past,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Velocity [rows, bins, T], new keys and values of all layers, new tails.

        ``parts`` [6 * depth + 2, dim]; keys and values [depth, rows, 2, heads, T, head dim]; tails
        [rows, 2, dim, 30].
        """
        h, tails = self.embed(x, mu, speaker, cond, past.tails, past.kept)
        rope = rotary(past.positions, self.rotary_embed.inv_freq)  # type: ignore[arg-type]
        new = []
        for i, block in enumerate(self.blocks()):
            h, keys_values = block(h, parts[BLOCK_PARTS * i : BLOCK_PARTS * (i + 1)], rope, past.mask, past.layers(i))
            new.append(keys_values)
        scale, shift = parts[-FINAL_PARTS:].unbind(0)
        velocity = self.proj_out(_norm(h) * (1 + scale) + shift).transpose(1, 2)
        return velocity, torch.stack(new), tails

    def lower(self, dtype: torch.dtype) -> Estimator:
        """Keeps the weights of attention and feed-forward products in ``dtype``; everything else stays float32."""
        for block in self.blocks():
            block.attn.to(dtype)
            block.ff.to(dtype)
        return self


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def _rotate_first_head(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Rotary positions on head 0 only, in interleaved pairs: so the authors' code, and the weights, have it.

    x [rows, heads, T, head dim]; rope [2, rows, T, head dim].
    """
    head = x[:, 0]
    turned = torch.stack([-head[..., 1::2], head[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([(head * rope[0] + turned * rope[1])[:, None], x[:, 1:]], dim=1)


def _linear(norm: nn.ModuleDict) -> nn.Linear:
    linear = norm["linear"]
    assert isinstance(linear, nn.Linear)
    return linear
