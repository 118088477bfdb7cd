"""Speech tokens to mel: front end and one Euler step of the flow matching.

Written for export: the mask is arithmetic, the ten fixed times are a table, the guidance pair is one
batch, caches are inputs and outputs. Parameter names are those of ``flow.pt``. Source: reference
sections 1.2, 1.3 and 2.5.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from kernels.flow import GUIDANCE_ROWS, gather_blocks
from kernels.token2wav import guided_step
from runtime.token2wav.config import EULER_STEPS, SMOOTHING_KERNEL, FlowConfig
from runtime.token2wav.flow.dit import Estimator
from runtime.token2wav.flow.past import Past, additive, visible_frames

LOOKAHEAD_SLOPE = 0.01


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
        """Tokens between their neighbours to mu.

        Args:
            tokens: [rows, 2 + N + lookahead] int64; the first two and the last ``lookahead`` are context.
            valid: [rows, 2 + N + lookahead] float32, 0 where there is no token: before the first, and
                after the last at the end.

        Returns:
            [rows, bins, frames_per_token * N].
        """
        ahead = self.config.lookahead
        x = (self.input_embedding(tokens) * valid[..., None]).transpose(1, 2)
        h = F.leaky_relu(self.pre_lookahead_layer["conv1"](x), LOOKAHEAD_SLOPE)
        h = h * valid[:, None, :-ahead]  # the second convolution starts from silence, not from what a bias makes of it
        h = self.pre_lookahead_layer["conv2"](h) + x[:, :, SMOOTHING_KERNEL - 1 : -ahead]
        return h.repeat_interleave(self.config.frames_per_token, dim=2)


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
        first: torch.Tensor,
        frames: torch.Tensor,
        kept: torch.Tensor,
        block: torch.Tensor,
        window: torch.Tensor,
        step: torch.Tensor,
        tails: torch.Tensor,
        tables: torch.Tensor,
        table_blocks: torch.Tensor,
        caches: tuple[torch.Tensor, ...],
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The next x, and what later calls need of these frames.

        Args:
            x: [streams, bins, T] float32.
            mu: [streams, bins, T].
            speaker: [streams, bins].
            first: [streams] int64 absolute frame of column 0, a multiple of the block.
            frames: [streams] int64 valid columns.
            kept: [streams] int64 columns that lie in complete blocks.
            block: [1] int64 frames of a block of attention.
            window: [1] int64 blocks that a frame sees before its own.
            step: [1] int64, 0 to 9.
            tails: [streams, 2, 2, dim, 30] of guidance row and convolution.
            tables: [streams, slots] int64 rows of the caches; anything where there is no block.
            table_blocks: [streams, slots] int64 block of the stream in each slot, else ``NO_BLOCK``.
            caches: one of each layer [blocks, 2, 2, heads, block frames, head dim] of guidance row, key or value.

        Returns:
            x [streams, bins, T]; keys and values [depth, streams, 2, 2, heads, T, head dim]; tails.
        """
        own = first[:, None] + torch.arange(x.shape[2], device=x.device)
        cached = table_blocks.repeat_interleave(caches[0].shape[4], dim=1)
        past = Past(
            positions=_pair(own),
            mask=_pair(additive(visible_frames(own, frames, cached, block, window))),
            tails=tails.transpose(0, 1).flatten(0, 1),
            kept=_pair(kept),
            layers=lambda layer: gather_blocks(caches[layer], tables),
        )
        moved, new, new_tails = self.advance(x, mu, speaker, torch.zeros_like(x), step, past)
        shape = (GUIDANCE_ROWS, x.shape[0])
        return moved, new.unflatten(1, shape).transpose(1, 2), new_tails.unflatten(0, shape).transpose(0, 1)

    def advance(
        self,
        x: torch.Tensor,
        mu: torch.Tensor,
        speaker: torch.Tensor,
        cond: torch.Tensor,
        step: torch.Tensor,
        past: Past,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """One step under any condition; rows with and without conditioning are one batch."""
        silent = torch.zeros_like
        velocity, new, tails = self.estimator(
            _pair(x),
            torch.cat([mu, silent(mu)]),
            torch.cat([speaker, silent(speaker)]),
            torch.cat([cond, silent(cond)]),
            self.parts.index_select(0, step)[0],
            past,
        )
        return guided_step(x, velocity, self.widths.index_select(0, step), self.guidance), new, tails


def _pair(rows: torch.Tensor) -> torch.Tensor:
    """Rows with conditioning, then the same without."""
    return torch.cat([rows] * GUIDANCE_ROWS)


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
