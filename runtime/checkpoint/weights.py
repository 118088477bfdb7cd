"""Tensors of a (sharded) safetensors checkpoint, checked by name and shape before a byte is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from runtime.checkpoint.fields import Fields
from runtime.checkpoint.layout import Shapes
from runtime.errors import BuildError

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint. Raises BuildError when there are none."""
    if (directory / INDEX_FILE).exists():
        names = sorted(set(Fields.read(directory / INDEX_FILE).get("weight_map", dict).values()))
        return [directory / name for name in names]
    if (directory / SINGLE_FILE).exists():
        return [directory / SINGLE_FILE]
    raise BuildError(
        str(directory), f"holds neither {INDEX_FILE} nor {SINGLE_FILE}", "give the downloaded checkpoint directory"
    )


def locate_weights(directory: Path, expected: Shapes) -> dict[str, Path]:
    """The file of every expected tensor; names and shapes are checked without reading one. Raises BuildError."""
    found: dict[str, Path] = {}
    for path in weight_files(directory):
        with _open(path) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a dict
                if name in expected:
                    _check_shape(path, name, tuple(shard.get_slice(name).get_shape()), expected[name])
                    found[name] = path
    _check_complete(directory, set(found), expected)
    return found


def check_weights(directory: Path, expected: Shapes) -> None:
    """Checks names and shapes of all expected tensors without reading one. Raises BuildError."""
    locate_weights(directory, expected)


def read_rows(path: Path, name: str, dtype: torch.dtype, block_bytes: int) -> Iterator[torch.Tensor]:
    """A tensor of a file as blocks of whole rows (first axis) in ``dtype``, each of about ``block_bytes``.

    The file is mapped for this one tensor only, so memory never holds more than it.
    """
    with _open(path) as shard:
        rows = shard.get_slice(name)
        count, *rest = rows.get_shape()
        step = max(1, block_bytes // (math.prod(rest) * dtype.itemsize))
        for begin in range(0, count, step):
            yield rows[begin : begin + step].to(dtype)


def load_weights(
    directory: Path, expected: Shapes, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> dict[str, torch.Tensor]:
    """Reads the expected tensors, shard by shard, in ``dtype`` on ``device``.

    Raises:
        BuildError: a tensor is missing or has another shape; the message names it and both shapes.
    """
    tensors: dict[str, torch.Tensor] = {}
    for path in weight_files(directory):
        with _open(path) as shard:
            for name in shard.keys():  # noqa: SIM118 - not a dict
                if name in expected:
                    _check_shape(path, name, tuple(shard.get_slice(name).get_shape()), expected[name])
                    tensors[name] = shard.get_tensor(name).to(device=device, dtype=dtype)
    _check_complete(directory, set(tensors), expected)
    return tensors


def _open(path: Path) -> Any:
    if not path.exists():
        raise BuildError(path.name, f"is named by {INDEX_FILE} but missing", "download the checkpoint again")
    try:
        return safe_open(str(path), framework="pt")
    except Exception as error:  # the library raises its own untyped error for a damaged file
        raise BuildError(path.name, f"is damaged ({error})", "download the file again") from None


def _check_complete(directory: Path, found: set[str], expected: Shapes) -> None:
    for name, shape in expected.items():
        if name not in found:
            raise BuildError(
                name, f"expected shape {list(shape)}, found no such tensor in {directory}", "check the checkpoint"
            )


def _check_shape(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise BuildError(
            name,
            f"expected shape {list(expected)}, found {list(found)} in {path.name}",
            "config.json and the weights must come from the same checkpoint",
        )
