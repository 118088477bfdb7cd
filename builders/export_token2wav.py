"""Flow and vocoder as ONNX graphs with their noise, voices and sizes, checked when exported."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from builders.noise_recipe import SECONDS, write_noise
from builders.onnx_export import export_checked
from builders.sound_sizes import sizes_of
from builders.voices import read_voices
from runtime.token2wav.config import POSITION_KERNEL, SMOOTHING_KERNEL, Token2WavConfig
from runtime.token2wav.flow.net import EulerStep, Flow, FlowFront
from runtime.token2wav.layout import FRONT_GRAPH, NO_BLOCK, STEP_GRAPHS, VOCODER_GRAPH, VOICES
from runtime.token2wav.vocoder.context import DECODER_LOOKAHEAD, PITCH_LOOKAHEAD
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.weights import load_module

FLOW_FILE, VOCODER_FILE = "flow.pt", "hift.pt"
PARTS = (VOCODER_GRAPH, *STEP_GRAPHS, FRONT_GRAPH)  # the longest first
PROBE_TOKENS, PROBE_ROWS, PROBE_FRAMES, PROBE_BLOCKS = 28, 2, 70, 4
TOLERANCES = {"float32": 2e-4, "float16": 2e-2}  # of an exported graph against torch


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
    say(f"token2wav: {len(PARTS)} graphs")
    written = _export_parts(cosyvoice, out)
    say("token2wav: noise")
    written += write_noise(config, out, noise_seconds)
    np.savez(out / VOICES, names=np.array(list(table)), embeddings=torch.stack(list(table.values())).numpy())
    return [*written, out / VOICES, sizes_of(config, tuple(table)).write(out)]


def _export_parts(cosyvoice: Path, out: Path) -> list[Path]:
    """All graphs, as many at once as there are processors: tracing takes half a minute and one of them each."""
    workers = min(len(PARTS), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return [path for paths in pool.map(partial(_export_part, cosyvoice, out), PARTS) for path in paths]


def _export_part(cosyvoice: Path, out: Path, part: str) -> list[Path]:
    torch.set_num_threads(1)
    config = Token2WavConfig.read(cosyvoice)
    if part == VOCODER_GRAPH:
        return export_vocoder(load_module(Vocoder(config.hift), cosyvoice / VOCODER_FILE), out)
    flow = load_module(Flow(config.flow), cosyvoice / FLOW_FILE)
    if part == FRONT_GRAPH:
        return export_front(flow, out)
    return export_step(flow, out, part)


def export_front(flow: Flow, out: Path) -> list[Path]:
    """Tokens and speaker to conditioning, with free batch and length."""
    config, generator = flow.config, torch.Generator().manual_seed(0)
    width = SMOOTHING_KERNEL - 1 + PROBE_TOKENS + config.lookahead
    valid = torch.ones(PROBE_ROWS, width)
    valid[0, -config.lookahead :] = 0
    valid[1, : SMOOTHING_KERNEL - 1] = 0
    rows, columns = _dim("rows"), _dim("columns", SMOOTHING_KERNEL + config.lookahead)  # at least one token of its own
    inputs: dict[str, Any] = {
        "tokens": torch.randint(config.vocab_size, (PROBE_ROWS, width), generator=generator),
        "valid": valid,
        "embedding": torch.randn(PROBE_ROWS, config.speaker_dim, generator=generator),
    }
    dims = {"tokens": {0: rows, 1: columns}, "valid": {0: rows, 1: columns}, "embedding": {0: rows}}
    return export_checked(FlowFront(flow).eval(), inputs, dims, ["mu", "speaker"], out / FRONT_GRAPH)


def export_step(flow: Flow, out: Path, precision: str) -> list[Path]:
    """One Euler step with free batch, length, slots and blocks of the caches.

    ``precision``: of products and caches, a key of ``STEP_GRAPHS``; all else is float32, and the graph
    says so with casts, so a strongly typed compiler keeps it.
    """
    config, generator = flow.config, torch.Generator().manual_seed(0)
    low = getattr(torch, precision)
    step = EulerStep(flow).eval()
    step.estimator.lower(low)
    shape = (PROBE_ROWS, config.mel_bins, PROBE_FRAMES)
    cache = (PROBE_BLOCKS, 2, 2, config.heads, config.block_frames, config.head_dim)
    tails = (PROBE_ROWS, 2, 2, config.dim, POSITION_KERNEL - 1)
    inputs: dict[str, Any] = {
        "x": torch.randn(shape, generator=generator),
        "mu": torch.randn(shape, generator=generator),
        "speaker": torch.randn(shape[:2], generator=generator),
        "first": torch.tensor([3 * config.block_frames, config.block_frames]),
        "frames": torch.tensor([PROBE_FRAMES, PROBE_FRAMES // 2]),
        "kept": torch.tensor([config.block_frames, 0]),
        "block": torch.tensor([config.block_frames]),
        "window": torch.tensor([2]),
        "step": torch.tensor([3]),
        "tails": torch.randn(tails, generator=generator),
        "tables": torch.tensor([[2, 0, 3], [1, 0, 0]]),
        "table_blocks": torch.tensor([[1, 2, NO_BLOCK], [0, NO_BLOCK, NO_BLOCK]]),
        "caches": tuple(torch.randn(cache, generator=generator).to(low) for _ in range(config.depth)),
    }
    streams, length, slots, blocks = (_dim(name) for name in ("streams", "length", "slots", "blocks"))
    dims: dict[str, Any] = {
        **{name: {0: streams, 2: length} for name in ("x", "mu")},
        **{name: {0: streams} for name in ("speaker", "first", "frames", "kept", "tails")},
        **{name: {} for name in ("block", "window", "step")},
        **{name: {0: streams, 1: slots} for name in ("tables", "table_blocks")},
        "caches": tuple({0: blocks} for _ in range(config.depth)),
    }
    outputs = ["next", "keys_values", "next_tails"]
    return export_checked(step, inputs, dims, outputs, out / STEP_GRAPHS[precision], TOLERANCES[precision])


def export_vocoder(vocoder: Vocoder, out: Path) -> list[Path]:
    """The windowed vocoder with free batch and window lengths."""
    config = vocoder.config
    generator = torch.Generator().manual_seed(0)
    frames = 40
    inputs = {
        "mel_pitch": torch.randn(PROBE_ROWS, config.mel_bins, frames + PITCH_LOOKAHEAD + 2, generator=generator),
        "mel": torch.randn(PROBE_ROWS, config.mel_bins, frames, generator=generator),
        "turns": torch.rand(PROBE_ROWS, config.harmonics, generator=generator),
        "noise": torch.rand(PROBE_ROWS, frames * config.frame_samples, config.harmonics, generator=generator),
        "lead": torch.tensor([2, 0]),
        "frames": torch.tensor([frames - DECODER_LOOKAHEAD, frames - 9]),
        "source_frames": torch.tensor([frames, frames - 5]),
    }
    rows = _dim("rows")
    dims = {
        "mel_pitch": {0: rows, 2: _dim("pitch_frames", PITCH_LOOKAHEAD + 1)},
        "mel": {0: rows, 2: _dim("mel_frames", DECODER_LOOKAHEAD + 1)},
        # A whole number of frames: the graph derives the frame count from it.
        "noise": {0: rows, 1: config.frame_samples * _dim("source_columns")},
        **{name: {0: rows} for name in ("turns", "lead", "frames", "source_frames")},
    }
    return export_checked(vocoder.eval(), inputs, dims, ["audio", "f0"], out / VOCODER_GRAPH)


def _dim(name: str, least: int = 1) -> Any:
    """A free axis; below ``least`` a convolution would have nothing to see."""
    return torch.export.Dim(name, min=least, max=1 << 20)
