"""Speech tokens to mel: front end and one Euler step of the flow-matching transformer (DiT).

Written for export: no data-dependent control flow, the mask is arithmetic, the time-dependent
projections are a table over the ten fixed times, the guidance pair is one batch. Parameter names
are those of ``flow.pt``. Source: reference sections 1.2 to 1.4.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from runtime.token2wav.config import EULER_STEPS, FlowConfig

TIME_FEATURES = 256
TIME_SCALE = 1000.0
MAX_TIMESCALE = 10000.0
POSITION_KERNEL, POSITION_GROUPS = 31, 16
NORM_EPS = 1e-6
LOOKAHEAD_SLOPE = 0.01
BLOCK_PARTS, FINAL_PARTS = 6, 2  # shift, scale, gate twice; scale, shift


def time_grid() -> tuple[torch.Tensor, torch.Tensor]:
    """Times and step widths of the ten Euler steps, accumulated in float32 as the authors do."""
    spaced = 1 - torch.cos(torch.linspace(0, 1, EULER_STEPS + 1) * 0.5 * torch.pi)
    t, dt = spaced[0], spaced[1] - spaced[0]
    times, widths = [], []
    for step in range(1, EULER_STEPS + 1):
        times.append(t)
        widths.append(dt)
        t = t + dt
        if step < EULER_STEPS:
            dt = spaced[step + 1] - t
    return torch.stack(times), torch.stack(widths)


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
        self.block_frames = config.block_frames

    def modulations(self, times: torch.Tensor) -> torch.Tensor:
        """Adaptive norm parts of every time [times, 6 * depth + 2, dim]: all that time decides."""
        half = TIME_FEATURES // 2
        step = math.log(MAX_TIMESCALE) / (half - 1)
        angles = TIME_SCALE * times[:, None] * torch.exp(-step * torch.arange(half))
        condition = F.silu(self.time_embed["time_mlp"](torch.cat([angles.sin(), angles.cos()], dim=-1)))
        linears = [module.attn_norm["linear"] for module in self.transformer_blocks]  # type: ignore[index, union-attr]
        linears.append(self.norm_out["linear"])
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
        for i, block in enumerate(self.transformer_blocks):
            h = block(h, parts[BLOCK_PARTS * i : BLOCK_PARTS * (i + 1)], rope, mask)
        scale, shift = parts[-FINAL_PARTS:].unbind(0)
        return self.proj_out(_norm(h) * (1 + scale) + shift).transpose(1, 2)


class Flow(nn.Module):
    """Both halves of the flow under the names of ``flow.pt``."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        bins = config.mel_bins
        self.input_embedding = nn.Embedding(config.vocab_size, bins)
        self.spk_embed_affine_layer = nn.Linear(config.speaker_dim, bins)
        self.pre_lookahead_layer = nn.ModuleDict(
            {
                "conv1": nn.Conv1d(bins, config.lookahead_channels, config.lookahead + 1),
                "conv2": nn.Conv1d(config.lookahead_channels, bins, 3),
            }
        )
        self.decoder = nn.ModuleDict({"estimator": Estimator(config)})

    @property
    def estimator(self) -> Estimator:
        """The velocity net."""
        estimator = self.decoder["estimator"]
        assert isinstance(estimator, Estimator)
        return estimator

    def project_speaker(self, embedding: torch.Tensor) -> torch.Tensor:
        """Raw speaker vectors [rows, speaker dim] to [rows, bins]."""
        return self.spk_embed_affine_layer(F.normalize(embedding, dim=1))

    def condition(self, tokens: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """Tokens with their lookahead to mu.

        Args:
            tokens: [rows, N + lookahead] int64; the last ``lookahead`` are only looked at.
            valid: [rows, N + lookahead] float32, 0 where there is no token (the end of a last chunk).

        Returns:
            [rows, bins, frames_per_token * N].
        """
        x = (self.input_embedding(tokens) * valid[..., None]).transpose(1, 2)
        h = F.leaky_relu(self.pre_lookahead_layer["conv1"](x), LOOKAHEAD_SLOPE)
        h = self.pre_lookahead_layer["conv2"](F.pad(h, (2, 0)))
        h = h + x[:, :, : -self.config.lookahead]
        return h.repeat_interleave(self.config.frames_per_token, dim=2)


def visible_frames(total: int, frames: torch.Tensor, block: int) -> torch.Tensor:
    """Block attention [rows, T, T]: a frame sees all frames up to the end of its own block."""
    steps = torch.arange(total, device=frames.device)
    block_end = (torch.div(steps, block, rounding_mode="floor") + 1) * block
    return (steps < block_end[:, None])[None] & (steps < frames[:, None])[:, None]


class EulerStep(nn.Module):
    """One guided Euler step as a graph; the step number picks time, width and modulations from tables."""

    parts: torch.Tensor
    widths: torch.Tensor

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.estimator, self.guidance = flow.estimator, flow.config.guidance
        times, widths = time_grid()
        with torch.no_grad():
            self.register_buffer("parts", self.estimator.modulations(times))
        self.register_buffer("widths", widths)

    def forward(
        self, x: torch.Tensor, mu: torch.Tensor, speaker: torch.Tensor, frames: torch.Tensor, step: torch.Tensor
    ) -> torch.Tensor:
        """The next x.

        Args:
            x: [rows, bins, T] float32.
            mu: [rows, bins, T].
            speaker: [rows, bins].
            frames: [rows] int64 valid frames of each row.
            step: [1] int64, 0 to 9.
        """
        visible = visible_frames(x.shape[2], frames, self.estimator.block_frames)
        return self.advance(x, mu, speaker, torch.zeros_like(x), visible, step)

    def advance(
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        cond: torch.Tensor,
        visible: torch.Tensor,
        step: torch.Tensor,
    ) -> torch.Tensor:
        """One step under any mask and condition; rows with and without conditioning are one batch."""
        silent = torch.zeros_like
        velocity = self.estimator(
            torch.cat([x, x]),
            torch.cat([mu, silent(mu)]),
            torch.cat([speaker, silent(speaker)]),
            torch.cat([cond, silent(cond)]),
            self.parts.index_select(0, step)[0],
            torch.cat([visible, visible]),
        )
        guided, free = velocity[: x.shape[0]], velocity[x.shape[0] :]
        guided = (1 + self.guidance) * guided - self.guidance * free
        return x + self.widths.index_select(0, step) * guided


class FlowFront(nn.Module):
    """Tokens and speaker to the conditioning of all Euler steps, as a graph."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(
        self, tokens: torch.Tensor, valid: torch.Tensor, embedding: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Flow.condition`` and ``Flow.project_speaker``: mu and speaker."""
        return self.flow.condition(tokens, valid), self.flow.project_speaker(embedding)


def _norm(x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=NORM_EPS)


def _rotate_first_head(x: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    """Rotary positions on head 0 only, in interleaved pairs: so the authors' code, and the weights, have it."""
    head = x[:, 0]
    turned = torch.stack([-head[..., 1::2], head[..., 0::2]], dim=-1).flatten(-2)
    return torch.cat([(head * rope[0] + turned * rope[1])[:, None], x[:, 1:]], dim=1)
