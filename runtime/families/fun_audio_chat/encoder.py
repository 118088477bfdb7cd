"""The continuous audio encoder as one graph over windows: log-mel in, grouped 5 Hz embeddings out.

Attention never leaves a window of ``2 * n_window`` mel frames (2 s), a full window holds a whole
number of groups, and pairs of rows never straddle windows. So windows of all clips form one batch
and everything up to the projected group mean is one feed-forward graph. Source: reference, 2.2, 2.3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from runtime.families.fun_audio_chat.config import EncoderConfig
from runtime.families.fun_audio_chat.tensors import ENCODER

LAYER_NORM_EPS = 1e-5
MAX_TIMESCALE = 10000.0


def sinusoids(rows: int, width: int) -> torch.Tensor:
    """Position table [rows, width]: sines in the first half, cosines in the second."""
    step = math.log(MAX_TIMESCALE) / (width // 2 - 1)
    angles = torch.arange(rows)[:, None] * torch.exp(-step * torch.arange(width // 2))[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class EncoderLayer(nn.Module):
    """Pre-norm Whisper layer with attention over the valid rows of each window."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.d_model
        self.heads = config.num_heads
        self.self_attn = nn.ModuleDict(
            {f"{part}_proj": nn.Linear(width, width, bias=part != "k") for part in ("q", "k", "v", "out")}
        )
        self.self_attn_layer_norm = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.fc1 = nn.Linear(width, config.ffn_size)
        self.fc2 = nn.Linear(config.ffn_size, width)
        self.final_layer_norm = nn.LayerNorm(width, LAYER_NORM_EPS)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """x [windows, rows, width]; mask [windows, 1, 1, rows] additive."""
        normed = self.self_attn_layer_norm(x)
        q, k, v = (self._split(self.self_attn[f"{n}_proj"](normed)) for n in "qkv")
        weights = torch.softmax(q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5) + mask, dim=-1)
        x = x + self.self_attn["out_proj"]((weights @ v).transpose(1, 2).flatten(2))
        return x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class AudioEncoder(nn.Module):
    """Windows of log-mel to group embeddings in the backbone's width."""

    positions: torch.Tensor

    def __init__(self, config: EncoderConfig, hidden: int) -> None:
        super().__init__()
        width = config.d_model
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.ln_post = nn.LayerNorm(width, LAYER_NORM_EPS)
        self.proj = nn.Linear(width, config.output_dim)
        self.group_proj = nn.Linear(config.output_dim, hidden, bias=False)
        self.register_buffer("positions", sinusoids(config.n_window, width), persistent=False)

    def embed(self, mel: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Convolutions and positions: rows [windows, n_window, width] and which are valid [windows, n_window]."""
        steps = torch.arange(self.config.window_frames, device=mel.device)
        inside = (steps[None] < frames[:, None]).to(mel.dtype)[:, None]
        # The second convolution must see zeros, not the first one's bias, beyond the end.
        x = F.gelu(self.conv1(mel * inside)) * inside
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.positions.to(mel.dtype)
        rows = torch.div(frames + 1, 2, rounding_mode="floor")
        return x, steps[None, : self.config.n_window] < rows[:, None]

    def rows(self, mel: torch.Tensor, frames: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """Encoder output rows at 25 Hz [windows, n_window / 2, output_dim], zero from ``keep`` on."""
        x, valid = self.embed(mel, frames)
        mask = torch.where(valid, 0.0, torch.finfo(mel.dtype).min).to(mel.dtype)[:, None, None]
        for layer in self.layers:
            x = layer(x, mask)
        pairs = x.unflatten(1, (-1, 2))
        # A clip of one row keeps it: its missing partner is replaced by itself.
        lone = (frames <= 2)[:, None, None]
        pooled = torch.where(lone, pairs[:, :, 0], pairs.mean(dim=2))
        kept = torch.arange(pooled.shape[1], device=mel.device)[None] < keep[:, None]
        return self.proj(self.ln_post(pooled)) * kept[..., None].to(mel.dtype)

    def forward(self, mel: torch.Tensor, frames: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """One batch of windows.

        Args:
            mel: [windows, mel bins, 2 * n_window] float32, zero beyond each window's frames.
            frames: [windows] int64 valid mel frames, at least 1.
            keep: [windows] int64 rows at 25 Hz that count; the others are zeros in their group's mean.

        Returns:
            [windows, groups of a full window, backbone hidden].
        """
        groups = self.rows(mel, frames, keep).unflatten(1, (-1, self.config.group_size))
        return self.group_proj(groups.mean(dim=2))

    def load(self, weights: Mapping[str, torch.Tensor]) -> AudioEncoder:
        """Takes the checkpoint's tensors and returns itself in evaluation mode."""
        state = {name.removeprefix(ENCODER): tensor for name, tensor in weights.items() if name.startswith(ENCODER)}
        state["group_proj.weight"] = weights["audio_tower.continual_output_matching.weight"]
        self.load_state_dict(state)
        return self.eval()
