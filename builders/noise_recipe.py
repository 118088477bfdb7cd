"""The noise that the released model was built with: an input of our graphs, never a seed inside one.

Both buffers come from CPU seed 0 at construction and are in no file. The recipe below draws what the
authors' classes draw, in their order, without their weights. Source: reference section 1.6.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.layout import MEL_NOISE, SOURCE_NOISE
from runtime.token2wav.vocoder.context import PITCH_KERNEL, PITCH_LAYERS, PITCH_LOOKAHEAD

SECONDS = 300  # what the authors' buffers hold; beyond it the index wraps
SEED = 0


def draw_noise(config: Token2WavConfig, seconds: int = SECONDS) -> tuple[np.ndarray, np.ndarray]:
    """Start of the flow's ODE [bins, frames] and source noise [samples, harmonics], float32.

    ``seconds`` below the full length gives a prefix of the source noise; the flow's noise is laid
    out by channel, so it is always drawn in full.
    """
    flow, hift = config.flow, config.hift
    frames = SECONDS * config.token_hz * flow.frames_per_token
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        mel_noise = torch.randn(1, flow.mel_bins, frames)[0]
        # Initialisations that stand between the two draws.
        nn.Embedding(flow.vocab_size, flow.mel_bins)
        nn.Linear(flow.speaker_dim, flow.mel_bins)
        nn.Conv1d(hift.mel_bins, hift.pitch_channels, PITCH_LOOKAHEAD + 1)
        for _ in range(PITCH_LAYERS):
            nn.Conv1d(hift.pitch_channels, hift.pitch_channels, PITCH_KERNEL)
        nn.Linear(hift.pitch_channels, 1)
        torch.rand(1, hift.harmonics)
        source_noise = torch.rand(seconds * hift.sample_rate, hift.harmonics)
    return mel_noise.numpy(), source_noise.numpy()


def write_noise(config: Token2WavConfig, folder: Path, seconds: int = SECONDS) -> list[Path]:
    """Writes both buffers as .npy files, to be memory-mapped."""
    paths = [folder / MEL_NOISE, folder / SOURCE_NOISE]
    for path, noise in zip(paths, draw_noise(config, seconds), strict=True):
        np.save(path, noise)
    return paths
