"""Speech tokens to mel: front end and one Euler step of the flow matching.

Written for export: the mask is arithmetic, the ten fixed times are a table, the guidance pair is one
batch. Parameter names are those of ``flow.pt``. Source: reference sections 1.2 and 1.3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from runtime.token2wav.config import EULER_STEPS, FlowConfig
from runtime.token2wav.dit import Estimator

LOOKAHEAD_SLOPE = 0.01
SMOOTHING_KERNEL = 3  # second convolution of the lookahead layer, causal


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
                "conv2": nn.Conv1d(config.lookahead_channels, bins, SMOOTHING_KERNEL),
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
        h = self.pre_lookahead_layer["conv2"](F.pad(h, (SMOOTHING_KERNEL - 1, 0)))
        h = h + x[:, :, : -self.config.lookahead]
        return h.repeat_interleave(self.config.frames_per_token, dim=2)


def visible_frames(total: int, frames: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Block attention [rows, T, T]: a frame sees all valid frames up to the end of its own block.

    A block that is longer than any stream gives full attention.
    """
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
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        frames: torch.Tensor,
        block: torch.Tensor,
        step: torch.Tensor,
    ) -> torch.Tensor:
        """The next x.

        Args:
            x: [rows, bins, T] float32.
            mu: [rows, bins, T].
            speaker: [rows, bins].
            frames: [rows] int64 valid frames of each row.
            block: [1] int64 frames of a block of attention.
            step: [1] int64, 0 to 9.
        """
        visible = visible_frames(x.shape[2], frames, block)
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
