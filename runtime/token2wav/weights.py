"""``flow.pt`` and ``hift.pt`` into modules whose parameter names are those of the files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from runtime.errors import BuildError

Module = TypeVar("Module", bound=nn.Module)
Tensors = dict[str, torch.Tensor]

PREFIX = "generator."  # some releases of hift.pt carry it
# Gain and direction of a weight-normalised convolution, in the two spellings of torch.
NORM_PAIRS = (
    (".parametrizations.weight.original0", ".parametrizations.weight.original1"),
    (".weight_g", ".weight_v"),
)


def read_tensors(path: Path) -> Tensors:
    """A state dict, weights only; weight norm is folded and prefixes are stripped.

    Raises:
        BuildError: the file is missing or holds anything but tensors.
    """
    if not path.exists():
        raise BuildError(path.name, f"not found in {path.parent}", "give the downloaded CosyVoice3 directory")
    try:
        mmap = zipfile.is_zipfile(path)  # files in torch's older format cannot be mapped
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged or hostile file raises almost anything
        reason = str(error).splitlines()[0][:120]
        raise BuildError(path.name, f"cannot be read as plain tensors ({reason})", "download it again") from None
    tensors = {name.removeprefix(PREFIX): t for name, t in state.items() if isinstance(t, torch.Tensor)}
    return fold_weight_norm(tensors)


def fold_weight_norm(tensors: Tensors) -> Tensors:
    """Replaces every pair of gain g [out, 1, 1] and direction v by the weight g v / |v|."""
    folded = dict(tensors)
    for gain_suffix, direction_suffix in NORM_PAIRS:
        for name in [n for n in tensors if n.endswith(gain_suffix)]:
            stem = name.removesuffix(gain_suffix)
            gain, direction = folded.pop(name), folded.pop(stem + direction_suffix, None)
            if direction is None:
                raise BuildError(stem + direction_suffix, "is missing beside its gain", "download the file again")
            norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.dim() - 1))
            if gain.shape != norm.shape:
                problem = f"expected shape {list(norm.shape)}, found {list(gain.shape)}"
                raise BuildError(name, problem, "gain and direction must match: download the file again")
            folded[stem + ".weight"] = direction * (gain / norm)
    return folded


def expected_shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a module (on any device, the meta device too) reads from its file."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def load_module(module: Module, path: Path) -> Module:
    """Fills a module from a file, in float32 and evaluation mode.

    Raises:
        BuildError: a tensor is missing or has another shape; the message names it and both shapes.
    """
    tensors = read_tensors(path)
    for name, shape in expected_shapes(module).items():
        found = tensors.get(name)
        if found is None or tuple(found.shape) != shape:
            what = "no such tensor" if found is None else str(list(found.shape))
            raise BuildError(
                name, f"expected shape {list(shape)}, found {what} in {path.name}", "yaml and weights must match"
            )
    module.load_state_dict({name: tensors[name].float() for name in module.state_dict()})
    return module.eval()
