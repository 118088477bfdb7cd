"""Mel to sound: pitch, harmonic source, HiFT decoder. Parameter names are those of ``hift.pt``.

Written for export and for windows: STFT and inverse STFT are convolutions, noise is an input, and
the phase of the harmonics enters as turns at the window's first frame, so it never grows. Source:
reference sections 1.5 and 2.6.
"""

from __future__ import annotations

from math import prod

import torch
import torch.nn.functional as F
from torch import nn

from runtime.token2wav.config import HiftConfig
from runtime.token2wav.vocoder.blocks import ResBlock, causal
from runtime.token2wav.vocoder.context import (
    DECODER_LOOKAHEAD,
    PITCH_KERNEL,
    PITCH_LAYERS,
    PITCH_LOOKAHEAD,
    POST_KERNEL,
)

FINAL_SLOPE = 0.01
MAX_MAGNITUDE = 100.0
UNVOICED_PARTS = 3.0
MIN_ENVELOPE = 1e-8  # between rows' ends there is nothing to divide


class PitchNet(nn.Module):
    """Fundamental frequency per frame; always float32."""

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        width = config.pitch_channels
        layers: list[nn.Module] = [nn.Conv1d(config.mel_bins, width, PITCH_LOOKAHEAD + 1), nn.ELU()]
        for _ in range(PITCH_LAYERS):
            layers += [nn.Conv1d(width, width, PITCH_KERNEL), nn.ELU()]
        self.condnet = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, 1)

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        """mel [rows, bins, frames + lookahead] to f0 in Hz [rows, frames]."""
        x = self.condnet[1](self.condnet[0](mel))
        for i in range(2, len(self.condnet), 2):
            x = self.condnet[i + 1](causal(self.condnet[i], x))  # type: ignore[arg-type]
        return self.classifier(x.transpose(1, 2))[..., 0].abs()


class Vocoder(nn.Module):
    """HiFT over a window of mel frames."""

    analysis: torch.Tensor
    synthesis: torch.Tensor
    window: torch.Tensor

    def __init__(self, config: HiftConfig) -> None:
        super().__init__()
        self.config = config
        base, bins = config.base_channels, config.n_fft + 2
        rates, kernels = config.upsample_rates, config.upsample_kernels
        widths = [base // 2 ** (i + 1) for i in range(len(rates))]
        self.m_source = nn.ModuleDict({"l_linear": nn.Linear(config.harmonics, 1)})
        self.conv_pre = nn.Conv1d(config.mel_bins, base, DECODER_LOOKAHEAD + 1)
        self.ups = nn.ModuleList(
            nn.Conv1d(before, after, kernel)
            for before, after, kernel in zip([base, *widths], widths, kernels, strict=False)
        )
        self.source_downs = nn.ModuleList(_source_conv(bins, width, rates[i + 1 :]) for i, width in enumerate(widths))
        self.source_resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width, kernel, dilations in zip(widths, config.source_kernels, config.source_dilations, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths
            for kernel, dilations in zip(config.resblock_kernels, config.resblock_dilations, strict=True)
        )
        self.conv_post = nn.Conv1d(widths[-1], bins, POST_KERNEL)
        self.f0_predictor = PitchNet(config)
        self._register_transforms()

    def _register_transforms(self) -> None:
        size = self.config.n_fft
        window = torch.hann_window(size, periodic=True, dtype=torch.float64)
        angles = 2 * torch.pi * torch.outer(torch.arange(size // 2 + 1), torch.arange(size)).double() / size
        analysis = torch.cat([angles.cos(), -angles.sin()]) * window
        weight = torch.full((size // 2 + 1, 1), 2.0, dtype=torch.float64)
        weight[0] = weight[-1] = 1.0  # bins without a mirror image
        synthesis = torch.cat([weight * angles.cos(), -weight * angles.sin()]) / size * window
        self.register_buffer("analysis", analysis.float()[:, None], persistent=False)
        self.register_buffer("synthesis", synthesis.float()[:, None], persistent=False)
        self.register_buffer("window", window.square().float()[None, None], persistent=False)

    def source(self, f0: torch.Tensor, turns: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Harmonic source.

        Args:
            f0: [rows, F] Hz.
            turns: [rows, harmonics] phase of each harmonic before the first frame, in turns.
            noise: [rows, F * frame samples, harmonics] uniform in 0..1.

        Returns:
            [rows, 1, F * frame samples].
        """
        config = self.config
        harmonics = torch.arange(1, config.harmonics + 1, dtype=f0.dtype, device=f0.device)
        cycles = f0[..., None] * harmonics / config.sample_rate  # per sample
        per_frame = (cycles - cycles.floor()) * config.frame_samples
        phase = turns[:, None] + torch.cumsum(per_frame - per_frame.floor(), dim=1)
        voiced = (f0 > config.voiced_hz).to(f0.dtype)[..., None]
        sines = config.nsf_alpha * torch.sin(2 * torch.pi * (phase - phase.floor())) * voiced
        level = config.nsf_sigma * voiced + config.nsf_alpha / UNVOICED_PARTS * (1 - voiced)
        spread = torch.cat([sines, level], dim=2).repeat_interleave(config.frame_samples, dim=1)
        mixed = spread[..., : config.harmonics] + spread[..., config.harmonics :] * noise
        return torch.tanh(self.m_source["l_linear"](mixed)).transpose(1, 2)

    def decode(
        self,
        mel: torch.Tensor,
        source: torch.Tensor,
        frames: torch.Tensor | None = None,
        source_frames: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mel and source to sound.

        Everything looks to the left but the edges of the two Fourier transforms, which are put where
        each row ends: rows of different lengths sound as alone.

        Args:
            mel: [rows, bins, C + lookahead].
            source: [rows, 1, at least C frames].
            frames: [rows] int64, C of each row; None: all of them.
            source_frames: [rows] int64 frames of source of each row; None: all of them.

        Returns:
            [rows, C frames].
        """
        config = self.config
        x = self.conv_pre(mel)
        rows, columns_per_frame = x.shape[0], config.frame_samples // config.hop
        if frames is None or source_frames is None:
            frames = torch.full((rows,), x.shape[2], device=x.device)
            source_frames = torch.full((rows,), source.shape[2] // config.frame_samples, device=x.device)
        spectrum = F.conv1d(self._reflect(source, source_frames), self.analysis, stride=config.hop)
        spectrum = spectrum[:, :, : x.shape[2] * columns_per_frame + 1]
        blocks = len(config.resblock_kernels)
        for i, up in enumerate(self.ups):
            x = F.leaky_relu(x, config.lrelu_slope)
            x = causal(up, x.repeat_interleave(config.upsample_rates[i], dim=2))  # type: ignore[arg-type]
            if i + 1 == len(self.ups):
                x = torch.cat([x[:, :, 1:2], x], dim=2)
            down = self.source_downs[i]
            assert isinstance(down, nn.Conv1d)
            injected = down(F.pad(spectrum, (down.stride[0] - 1, 0)))
            x = x + self.source_resblocks[i](injected)
            x = sum(block(x) for block in self.resblocks[blocks * i : blocks * (i + 1)]) / blocks  # type: ignore[assignment]
        x = causal(self.conv_post, F.leaky_relu(x, FINAL_SLOPE))
        columns = torch.arange(x.shape[2], device=x.device) <= frames[:, None] * columns_per_frame
        return self._synthesise(x, columns.to(x.dtype)[:, None])

    def _reflect(self, source: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
        """Half a transform more on both sides, mirrored where each row begins and ends."""
        half, length = self.config.n_fft // 2, source.shape[2]
        places = (torch.arange(length + 2 * half, device=source.device) - half).abs()[None]
        last = frames[:, None] * self.config.frame_samples - 1
        places = torch.where(places > last, 2 * last - places, places).clamp(min=0)
        return source.gather(2, places[:, None])

    def _synthesise(self, x: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        """Inverse transform of the columns that are 1."""
        bins = self.config.n_fft // 2 + 1
        magnitude = torch.exp(x[:, :bins]).clamp(max=MAX_MAGNITUDE) * columns
        phase = torch.sin(x[:, bins:])
        parts = torch.cat([magnitude * phase.cos(), magnitude * phase.sin()], dim=1)
        hop, half = self.config.hop, self.config.n_fft // 2
        sound = F.conv_transpose1d(parts, self.synthesis, stride=hop)
        envelope = F.conv_transpose1d(columns, self.window, stride=hop)
        sound = (sound / envelope.clamp(min=MIN_ENVELOPE))[:, 0, half:-half]
        return sound.clamp(-self.config.audio_limit, self.config.audio_limit)

    def forward(
        self,
        mel_pitch: torch.Tensor,
        mel: torch.Tensor,
        turns: torch.Tensor,
        noise: torch.Tensor,
        lead: torch.Tensor,
        frames: torch.Tensor,
        source_frames: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """One window of every row as a graph; rows are padded on the right, with zeros.

        Args:
            mel_pitch: [rows, bins, at least lead + F + 3], begins ``lead`` frames before the window for
                the pitch net's sake.
            mel: [rows, bins, C + 4], begins with the window.
            turns: [rows, harmonics] at the window's first frame.
            noise: [rows, F * frame samples, harmonics]; its length says what F is.
            lead: [rows] int64.
            frames: [rows] int64, C of each row.
            source_frames: [rows] int64, F of each row.

        Returns:
            Sound [rows, C * frame samples] and f0 [rows, F].
        """
        pitch = self.f0_predictor(mel_pitch)
        places = torch.arange(noise.shape[1] // self.config.frame_samples, device=mel.device)
        f0 = pitch.gather(1, (lead[:, None] + places).clamp(max=pitch.shape[1] - 1))
        return self.decode(mel, self.source(f0, turns, noise), frames, source_frames), f0


def _source_conv(bins: int, width: int, later_rates: tuple[int, ...]) -> nn.Conv1d:
    """Brings the source spectrum down to the rate of an upsampling stage."""
    stride = prod(later_rates)
    return nn.Conv1d(bins, width, 1) if stride == 1 else nn.Conv1d(bins, width, 2 * stride, stride=stride)
