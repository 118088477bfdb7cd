"""Checkpoints that people have: each kind of damage as a change of a copy of the tiny ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
Q_PROJ = "language_model.model.layers.0.self_attn.q_proj"
Change = Callable[[dict], None]


def copy_of(folder: Path, target: Path) -> Path:
    """A copy whose files may be changed."""
    return Path(shutil.copytree(folder, target))


def edit(path: Path, change: Change) -> None:
    """Changes the object of a JSON file."""
    values = json.loads(path.read_text("utf-8"))
    change(values)
    path.write_text(json.dumps(values, ensure_ascii=False), "utf-8")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a sharded checkpoint."""
    return {name: t for path in sorted(folder.glob("*.safetensors")) for name, t in load_file(path).items()}


def save_single(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Puts one file in place of all shards."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    save_file(tensors, folder / SINGLE)


def change_weights(change: Change) -> Callable[[Path], None]:
    """A change of the tensors, kept in a single file."""

    def apply(folder: Path) -> None:
        tensors = weights(folder)
        change(tensors)
        save_single(folder, tensors)

    return apply


def scaled(dtype: torch.dtype, most: float, suffix: str) -> Change:
    """Linear layers in few bits, with scales beside them."""

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if n.startswith("language_model") and "proj" in n]:
            scale = tensors[name].abs().max() / most
            tensors[name] = (tensors[name] / scale).to(dtype)
            tensors[name.removesuffix("weight") + suffix] = scale.reshape(1)

    return change


def add(name: str, value: torch.Tensor) -> Change:
    """One tensor more."""
    return lambda tensors: tensors.update({name: value})


def stale_index(folder: Path, keep_shards: bool) -> None:
    """A new single file beside index and shards of an earlier save, whose weights were half as large again."""
    tensors, old = weights(folder), "model-00001-of-00001.safetensors"
    save_single(folder, tensors)
    if keep_shards:
        save_file({name: 1.5 * tensor for name, tensor in tensors.items()}, folder / old)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(tensors, old)}))


def decoders(config: dict) -> list[dict]:
    """Both sections of decoders of a config.json."""
    return [config["text_config"], config["audio_config"]["crq_transformer_config"]]
