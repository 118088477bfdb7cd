"""The golden set of token2wav: a CosyVoice3 directory and vectors.

What the authors' classes drew from a seed is drawn here again, not stored: the noise (by the released
recipe, for a net of these sizes), the weights of the flow, and the inputs of the velocity net. The
weights of the vocoder are stored. Arrays named ``*_every_8`` keep every eighth entry of their last
axis. ``vectors.npz`` holds whole cases, ``internals.npz`` what lies inside the two nets.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch

from builders.noise_recipe import draw_noise
from runtime.token2wav.chunks import Arrays, Graph
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.weights import expected_shapes, load_module

FOLDER = Path(__file__).parent / "token2wav"
VOICE = "中文女"
WEIGHT_SEED, INTERNALS_SEED = 20250117, 20250119
ROPE = "decoder.estimator.rotary_embed.inv_freq"
EMBEDDING_SCALE, BIAS_SCALE = 0.8, 0.1
# Every other weight is normal, scaled by one over the root of its fan-in and by these.
GAINS = {"attn_norm.linear": 0.6, "to_q": 1.6, "to_k": 1.6, "proj_out": 1.2}


@cache
def vectors() -> dict[str, np.ndarray]:
    return dict(np.load(FOLDER / "vectors.npz"))


@cache
def internals() -> dict[str, np.ndarray]:
    """With the inputs of the velocity net: two rows of 70 frames at two times."""
    stored = dict(np.load(FOLDER / "internals.npz"))
    generator = torch.Generator().manual_seed(INTERNALS_SEED)
    for name, shape in (("x", (2, 80, 70)), ("mu", (2, 80, 70)), ("cond", (2, 80, 70)), ("spk", (2, 80))):
        stored[f"est_{name}"] = torch.randn(shape, generator=generator).numpy()
    return stored


def materialise_cosyvoice(path: Path) -> None:
    """Writes the golden CosyVoice3 directory in the released layout."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("cosyvoice3.yaml", "spk2info.pt"):
        shutil.copy(FOLDER / name, path / name)
    torch.save(_draw_flow(Token2WavConfig.read(path)), path / "flow.pt")
    with np.load(FOLDER / "hift.npz") as stored:
        torch.save({name: torch.from_numpy(stored[name]) for name in stored.files}, path / "hift.pt")


def _draw_flow(config: Token2WavConfig) -> dict[str, torch.Tensor]:
    """All weights of the flow, in the order of the released file."""
    with torch.device("meta"):
        shapes = expected_shapes(Flow(config.flow))
    generator = torch.Generator().manual_seed(WEIGHT_SEED)
    tensors = {}
    for name in json.loads((FOLDER / "real_layout.json").read_text())["flow.pt"]:
        if name in shapes and name != ROPE:
            tensors[name] = torch.randn(shapes[name], generator=generator) * _scale(name, shapes[name])
    pairs = torch.arange(0, config.flow.head_dim, 2).float()
    tensors[ROPE] = 1.0 / 10000.0 ** (pairs / config.flow.head_dim)
    return tensors


def _scale(name: str, shape: tuple[int, ...]) -> float:
    if len(shape) == 1:
        return BIAS_SCALE
    if name == "input_embedding.weight":
        return EMBEDDING_SCALE
    gain = next((gain for part, gain in GAINS.items() if part in name), 1.0)
    return gain / prod(shape[1:]) ** 0.5


@dataclass(frozen=True)
class Nets:
    """The golden nets in torch, and their noise: [80, 15000] and [8 s, 9]."""

    config: Token2WavConfig
    flow: Flow
    vocoder: Vocoder
    mel_noise: torch.Tensor
    source_noise: torch.Tensor

    @property
    def voice(self) -> torch.Tensor:
        """The speaker of all cases [1, 192]."""
        return torch.load(self.config.directory / "spk2info.pt", weights_only=True)[VOICE]["embedding"]


@cache
def nets() -> Nets:
    folder = Path(tempfile.mkdtemp(prefix="cosyvoice"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    materialise_cosyvoice(folder)
    config = Token2WavConfig.read(folder)
    flow = load_module(Flow(config.flow), folder / "flow.pt")
    vocoder = load_module(Vocoder(config.hift), folder / "hift.pt")
    mel_noise, source_noise = map(torch.from_numpy, draw_noise(config, seconds=8))
    return Nets(config, flow, vocoder, mel_noise, source_noise)


def torch_graph(module: torch.nn.Module, outputs: Sequence[str]) -> Graph:
    """A module in the place of its exported graph."""

    @torch.inference_mode()
    def run(arrays: Arrays) -> Arrays:
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
        caches = tuple(tensors.pop(name) for name in arrays if name.startswith("caches_"))
        found = module(**tensors, **({"caches": caches} if caches else {}))
        found = found if isinstance(found, tuple) else (found,)
        return {name: tensor.numpy() for name, tensor in zip(outputs, found, strict=True)}

    return run


def close(found: object, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, atol=tolerance, rtol=0)
