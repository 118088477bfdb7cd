"""``flow.pt`` and ``hift.pt`` into modules whose parameter names are those of the files."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from runtime.checkpoint.files import check_no_pointer, exists, one_line, reason
from runtime.checkpoint.quantised import check_beside, check_plain
from runtime.errors import BuildError

Module = TypeVar("Module", bound=nn.Module)
Tensors = dict[str, torch.Tensor]

PREFIX = "generator."  # some releases of hift.pt carry it
# Gain and direction of a weight-normalised convolution, in the two spellings of torch.
NORM_PAIRS = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)
KEYS_SHOWN = 5
_FOREIGN = re.compile(r"(?:GLOBAL|Unsupported class|Unsupported global:?(?: GLOBAL)?) ([\w.]+)")


def read_plain(path: Path, field: str, remedy: str) -> Any:
    """What ``torch.save`` wrote, tensors and plain data only: nothing in the file is ever executed.

    Args:
        field: how a message names the file.

    Raises:
        BuildError: the file cannot be opened, is damaged, of another kind, or holds other objects.
    """
    check_no_pointer(path, field)
    try:
        mmap = zipfile.is_zipfile(path)  # files in torch's older format cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged or hostile file raises almost anything
        foreign = _FOREIGN.search(str(error))
        words = f"it holds objects of {foreign[1]}" if foreign else reason(error)
        raise BuildError(field, f"cannot be read as plain tensors of torch.save ({words})", remedy) from None


def read_tensors(path: Path) -> Tensors:
    """A state dict, weights only; weight norm is folded and prefixes are stripped.

    Raises:
        BuildError: the file is missing or holds anything but tensors by name.
    """
    if not exists(path):
        raise BuildError(path.name, f"not found in {path.parent}", "give the downloaded CosyVoice3 directory")
    state = read_plain(path, path.name, "download it again")
    if not isinstance(state, Mapping):
        raise BuildError(
            path.name, f"holds a {type(state).__name__}, no tensors by name", "save the module's state_dict()"
        )
    named = {n: t.detach() for n, t in state.items() if isinstance(n, str) and isinstance(t, torch.Tensor)}
    tensors = {name.removeprefix(PREFIX): tensor for name, tensor in named.items()}
    if len(tensors) < len(named):
        raise BuildError(path.name, f"holds tensors with and without {PREFIX!r} before one name", "keep one of them")
    if not tensors:
        keys = one_line(", ".join(map(str, list(state)[:KEYS_SHOWN]))) or "nothing"
        raise BuildError(path.name, f"holds no tensors by name, but {keys}", "save the module's state_dict() itself")
    return fold_weight_norm(tensors, path.name)


def fold_weight_norm(tensors: Tensors, file: str = "") -> Tensors:
    """Replaces every pair of gain g [out, 1, 1] and direction v by the weight g v / |v|."""
    folded = dict(tensors)
    for gain_suffix, direction_suffix in NORM_PAIRS:
        for name in [n for n in tensors if n.endswith(gain_suffix)]:
            stem = name.removesuffix(gain_suffix)
            gain, direction = folded.pop(name), folded.pop(stem + direction_suffix, None)
            if direction is None:
                raise BuildError(stem + direction_suffix, "is missing beside its gain", "download the file again")
            for part, tensor in ((name, gain), (stem + direction_suffix, direction)):
                check_plain(part, tensor, file)
            folded[stem + ".weight"] = _fold(name, gain, direction)
    return folded


def _fold(name: str, gain: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    if not direction.dim():
        raise BuildError(name, "has a single number for its direction", "download the file again")
    norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.dim() - 1))
    if gain.shape != norm.shape:
        problem = f"expected shape {list(norm.shape)}, found {list(gain.shape)}"
        raise BuildError(name, problem, "gain and direction must match: download the file again")
    return direction * (gain / norm)


def expected_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a module (on any device, the meta device too) reads from its file."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def fitting_tensors(module: nn.Module, path: Path) -> Tensors:
    """The tensors of a file that a module (on any device, the meta device too) needs, checked and in float32.

    Raises:
        BuildError: a tensor is missing, has another shape, or its numbers are not plain and finite.
    """
    tensors, expected = read_tensors(path), expected_shapes(module)
    for name, shape in expected.items():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != shape:
            what = "no such tensor" if found is None else str(list(found.shape))
            raise BuildError(
                name, f"expected shape {list(shape)}, found {what} in {path.name}", "yaml and weights must match"
            )
        check_plain(name, found, path.name)
    check_beside(tensors, expected, path.name)
    fitting = {name: tensors[name].float() for name in expected}
    for name, tensor in fitting.items():
        _check_finite(name, tensor, path.name)
    return fitting


def load_module(module: Module, path: Path) -> Module:
    """Fills a module from a file, in float32 and evaluation mode.

    Raises:
        BuildError: a tensor is missing or has another shape; the message names it and both shapes.
    """
    module.load_state_dict(fitting_tensors(module, path))
    return module.eval()


def _check_finite(name: str, tensor: torch.Tensor, file: str) -> None:
    if tensor.is_meta or not all(map(torch.isfinite, torch.aminmax(tensor))):
        raise BuildError(name, f"holds numbers that are not finite in {file}", "download the file again")
