"""Flow and vocoder as ONNX graphs with their noise, voices and sizes, checked when exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.onnx_export import export_checked
from runtime.token2wav.config import EULER_STEPS, Token2WavConfig
from runtime.token2wav.context import PITCH_LOOKAHEAD, left_frames
from runtime.token2wav.flow import EulerStep, Flow, FlowFront
from runtime.token2wav.layout import FRONT_GRAPH, STEP_GRAPH, VOCODER_GRAPH, VOICES, Sizes
from runtime.token2wav.noise_recipe import SECONDS, write_noise
from runtime.token2wav.vocoder import Vocoder
from runtime.token2wav.voices import read_voices
from runtime.token2wav.weights import load_module

FLOW_FILE, VOCODER_FILE = "flow.pt", "hift.pt"
PROBE_TOKENS, PROBE_ROWS = 28, 2


def export_token2wav(
    cosyvoice: Path,
    out: Path,
    voices: Path | None,
    say: Callable[[str], None] = lambda line: None,
    noise_seconds: int = SECONDS,
) -> list[Path]:
    """Writes everything that the flow and vocoder stages need at run time into ``out``.

    Raises:
        BuildError: a key or tensor is missing or mis-shaped, there are no voices, or a graph disagrees with torch.
    """
    config = Token2WavConfig.read(cosyvoice)
    table = read_voices(cosyvoice, voices, config.flow.speaker_dim)
    out.mkdir(parents=True, exist_ok=True)
    say("token2wav: flow")
    written = export_flow(load_module(Flow(config.flow), cosyvoice / FLOW_FILE), out)
    say("token2wav: vocoder")
    written += export_vocoder(load_module(Vocoder(config.hift), cosyvoice / VOCODER_FILE), out)
    say("token2wav: noise")
    written += write_noise(config, out, noise_seconds)
    np.savez(out / VOICES, names=np.array(list(table)), embeddings=torch.stack(list(table.values())).numpy())
    return [*written, out / VOICES, _sizes(config, tuple(table)).write(out)]


def _sizes(config: Token2WavConfig, voices: tuple[str, ...]) -> Sizes:
    return Sizes(
        vocab_size=config.flow.vocab_size,
        mel_bins=config.flow.mel_bins,
        lookahead=config.flow.lookahead,
        frames_per_token=config.flow.frames_per_token,
        block_frames=config.flow.block_frames,
        euler_steps=EULER_STEPS,
        harmonics=config.hift.harmonics,
        frame_samples=config.hift.frame_samples,
        sample_rate=config.hift.sample_rate,
        vocoder_left=left_frames(config.hift),
        voices=voices,
    )


def export_flow(flow: Flow, out: Path) -> list[Path]:
    """The front end and one Euler step, both with free batch and length."""
    config = flow.config
    generator = torch.Generator().manual_seed(0)
    width = PROBE_TOKENS + config.lookahead
    tokens = torch.randint(config.vocab_size, (PROBE_ROWS, width), generator=generator)
    valid = torch.ones(PROBE_ROWS, width)
    valid[0, -config.lookahead :] = 0
    embedding = torch.randn(PROBE_ROWS, config.speaker_dim, generator=generator)
    rows, columns = _dim("rows"), _dim("columns")
    front_inputs: dict[str, Any] = {"tokens": tokens, "valid": valid, "embedding": embedding}
    front_dims = {"tokens": {0: rows, 1: columns}, "valid": {0: rows, 1: columns}, "embedding": {0: rows}}
    front = FlowFront(flow).eval()
    written = export_checked(front, front_inputs, front_dims, ["mu", "speaker"], out / FRONT_GRAPH)
    with torch.inference_mode():
        mu, speaker = front(tokens, valid, embedding)
    frames = torch.tensor([mu.shape[2], mu.shape[2] // 2])
    step_inputs = {
        "x": torch.randn(mu.shape, generator=generator),
        "mu": mu.clone(),
        "speaker": speaker.clone(),
        "frames": frames,
        "block": torch.tensor([config.block_frames]),
        "step": torch.tensor([3]),
    }
    length = _dim("length")
    step_dims = {
        "x": {0: rows, 2: length},
        "mu": {0: rows, 2: length},
        "speaker": {0: rows},
        "frames": {0: rows},
        "block": {},
        "step": {},
    }
    return written + export_checked(EulerStep(flow).eval(), step_inputs, step_dims, ["next"], out / STEP_GRAPH)


def export_vocoder(vocoder: Vocoder, out: Path) -> list[Path]:
    """The windowed vocoder with free window lengths."""
    config = vocoder.config
    generator = torch.Generator().manual_seed(0)
    frames = 40
    inputs = {
        "mel_pitch": torch.randn(1, config.mel_bins, frames + PITCH_LOOKAHEAD + 2, generator=generator),
        "mel": torch.randn(1, config.mel_bins, frames, generator=generator),
        "turns": torch.rand(1, config.harmonics, generator=generator),
        "noise": torch.rand(1, frames * config.frame_samples, config.harmonics, generator=generator),
    }
    dims = {
        "mel_pitch": {2: _dim("pitch_frames")},
        "mel": {2: _dim("mel_frames")},
        "turns": {},
        # A whole number of frames: the graph derives the frame count from it.
        "noise": {1: config.frame_samples * _dim("source_frames")},
    }
    return export_checked(vocoder.eval(), inputs, dims, ["audio", "f0"], out / VOCODER_GRAPH)


def _dim(name: str) -> Any:
    return torch.export.Dim(name, min=1, max=1 << 20)
