"""Tensors of a (sharded) safetensors checkpoint, checked by name, shape and stored type before a byte is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from runtime.checkpoint.files import check_no_pointer, exists, one_line, reason
from runtime.checkpoint.quantised import check_beside, check_dtype, check_folder
from runtime.checkpoint.shards import INDEX_FILE, SINGLE_FILE, Shapes, weight_files
from runtime.errors import BuildError

__all__ = [
    "INDEX_FILE", "SINGLE_FILE", "check_finite", "check_weights", "load_weights", "locate_weights", "read_rows",
    "weight_files",
]  # fmt: skip
BLOCK_BYTES = 64 << 20  # large enough for the disk, small beside a tensor of the released model


def locate_weights(directory: Path, expected: Shapes) -> dict[str, Path]:
    """The file of every expected tensor; nothing of them is read.

    Raises:
        BuildError: a tensor is missing, stored twice with two values, mis-shaped or not plain numbers.
    """
    found: dict[str, Path] = {}
    others: list[str] = []
    for path in weight_files(directory):
        for name, shape, dtype in _entries(path):
            if name not in expected:
                others.append(name)
            else:
                check_dtype(name, dtype, path.name)
                _check_shape(path, name, shape, expected[name])
                _check_same(name, found.get(name, path), path)
                found[name] = path
    _check_complete(directory, set(found), others, expected)
    return found


def check_weights(directory: Path, expected: Shapes) -> None:
    """Checks names, shapes and types of all tensors of a checkpoint without reading one.

    Args:
        expected: everything that any part of the runtime reads.

    Raises:
        BuildError: as ``locate_weights``, or something lies there that would have to be applied to the weights.
    """
    check_folder(directory)
    for path in weight_files(directory):
        entries = list(_entries(path))
        for name, _, dtype in entries:
            if name in expected:  # before any scale beside it, which would be the less obvious thing to say
                check_dtype(name, dtype, path.name)
        check_beside((name for name, _, _ in entries), expected, path.name)
    locate_weights(directory, expected)


def check_finite(directory: Path, expected: Shapes, dtype: torch.dtype) -> None:
    """Reads every expected tensor once, about as fast as the disk gives them.

    Raises:
        BuildError: one holds a number that is none, or that ``dtype`` cannot hold.
    """
    most = torch.finfo(dtype).max
    for name, path in locate_weights(directory, expected).items():
        for block in read_rows(path, name, None, BLOCK_BYTES):
            low, high = torch.aminmax(block)  # either is NaN where the block holds one
            if not -most <= float(low) <= float(high) <= most:
                problem = f"holds numbers that are not finite in {str(dtype).removeprefix('torch.')} in {path.name}"
                raise BuildError(name, problem, "download the file again, or give a checkpoint that was saved whole")


def read_rows(path: Path, name: str, dtype: torch.dtype | None, block_bytes: int) -> Iterator[torch.Tensor]:
    """A tensor of a file as blocks of whole rows (first axis), each of about ``block_bytes``.

    The file is mapped for this one tensor only, so memory never holds more than it.

    Args:
        dtype: of the blocks; None for the stored one.
    """
    with _open(path) as shard:
        rows = shard.get_slice(name)
        count, *rest = rows.get_shape()
        step = max(1, block_bytes // (math.prod(rest) * (dtype or torch.float32).itemsize))
        for begin in range(0, count, step):
            block = rows[begin : begin + step]
            yield block if dtype is None else block.to(dtype)


def load_weights(
    directory: Path, expected: Shapes, dtype: torch.dtype, device: str | torch.device = "cpu"
) -> dict[str, torch.Tensor]:
    """Reads the expected tensors, shard by shard, in ``dtype`` on ``device``.

    Raises:
        BuildError: a tensor is missing or has another shape; the message names it and both shapes.
    """
    tensors: dict[str, torch.Tensor] = {}
    located = locate_weights(directory, expected)
    for path in sorted(set(located.values())):
        with _open(path) as shard:
            for name in (name for name, place in located.items() if place == path):
                tensors[name] = shard.get_tensor(name).to(device=device, dtype=dtype)
    return tensors


def _open(path: Path) -> Any:
    if not exists(path):
        raise BuildError(path.name, f"is named by {INDEX_FILE} but missing", "download the checkpoint again")
    check_no_pointer(path)
    try:
        return safe_open(str(path), framework="pt")
    except Exception as error:  # the library raises its own untyped error for a damaged file
        raise BuildError(path.name, f"is damaged ({reason(error)})", "download the file again") from None


def _entries(path: Path) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and stored type of every tensor of a file."""
    with _open(path) as shard:
        for name in shard.keys():  # noqa: SIM118 - not a dict
            part = shard.get_slice(name)
            yield name, tuple(part.get_shape()), part.get_dtype()


def _check_complete(directory: Path, found: set[str], others: Iterable[str], expected: Shapes) -> None:
    missing = next((name for name in expected if name not in found), None)
    if missing is None:
        return
    # As training wrappers (DDP, FSDP, torch.compile, PEFT) save it.
    longer = next((name for name in others if name.endswith(f".{missing}")), None)
    problem = f"expected shape {list(expected[missing])}, found no such tensor in {directory}"
    if longer is None:
        raise BuildError(missing, problem, "check the checkpoint")
    remedy = "save the model itself, without what wraps it: model.save_pretrained(...)"
    raise BuildError(missing, f"{problem}, but {one_line(longer)}", remedy)


def _check_shape(path: Path, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise BuildError(
            name,
            f"expected shape {list(expected)}, found {list(found)} in {path.name}",
            "config.json and the weights must come from the same checkpoint",
        )


def _check_same(name: str, first: Path, second: Path) -> None:
    """A tensor that lies in two shards, as an index of several saves may have it, must be the same in both."""
    if first == second:
        return
    blocks = zip(read_rows(first, name, None, BLOCK_BYTES), read_rows(second, name, None, BLOCK_BYTES), strict=True)
    if not all(a.dtype == b.dtype and torch.equal(a, b) for a, b in blocks):
        problem = f"lies in {first.name} and in {second.name} with other numbers"
        raise BuildError(name, problem, "remove the shards of the earlier save, and their index")
