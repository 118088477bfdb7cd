"""Signs of quantized weights and of weights that need others applied: they are refused, never read as plain numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import torch

from runtime.checkpoint.files import exists, one_line
from runtime.errors import BuildError

# Names of the safetensors format for numbers that mean what they say.
PLAIN_DTYPES = ("F64", "F32", "F16", "BF16")
PLAIN = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ORIGINAL = "give the checkpoint in bfloat16 that it was made from"
# Files that quantizers leave beside the weights.
SIDECARS = ("hf_quant_config.json", "quantize_config.json", "quant_config.json", "hqq_quant_config.json", "qmodel.pt")
ADAPTER = "adapter_config.json"
TOWERS = ("language_model.", "audio_tower.", "audio_invert_tower.", "continuous_audio_tower.")
# Last words of tensors that only mean something together with quantized or partial weights.
_BESIDE = re.compile(
    r"(scales?|scale_inv|scale_\d+|scale_and_zero|zeros?|zero_points?|zp|qweight|qzeros|g_idx|SCB|absmax|quant_map"
    r"|quant_state\W.*|(weight|qweight|proj)_(packed|shape|blocks|format)|_blocks|codebooks?|amax|lora_[A-Za-z]+)$"
)


def check_folder(directory: Path) -> None:
    """Raises BuildError for files beside the weights that say that these are not whole or not plain."""
    for name in SIDECARS:
        if exists(directory / name):
            raise BuildError(
                name, f"lies in {directory}: the weights are quantized, which cannot be read here", ORIGINAL
            )
    if exists(directory / ADAPTER):
        problem = f"lies in {directory}: an adapter whose weights are not applied here"
        raise BuildError(ADAPTER, problem, "merge it into the model and give the merged checkpoint")


def check_dtype(name: str, dtype: str, file: str) -> None:
    """Raises BuildError unless a tensor of a safetensors file is stored as plain floating-point numbers."""
    if dtype not in PLAIN_DTYPES:
        raise BuildError(name, f"is stored as {dtype} in {file}: quantized weights cannot be read here", ORIGINAL)


def check_plain(name: str, tensor: torch.Tensor, file: str) -> None:
    """Raises BuildError unless a tensor in memory is dense and holds plain floating-point numbers."""
    if tensor.dtype not in PLAIN or tensor.layout != torch.strided or tensor.is_quantized:
        kind = str(tensor.dtype if tensor.layout == torch.strided else tensor.layout).removeprefix("torch.")
        raise BuildError(
            name, f"is stored as {kind} in {file}: only dense floating-point numbers can be read", ORIGINAL
        )


def check_beside(names: Iterable[str], expected: Collection[str], file: str) -> None:
    """Raises BuildError for a tensor that belongs to one that is read, such as its scale or a part of it."""
    modules = {name.rpartition(".")[0] for name in expected}
    for name in names:
        if name not in expected and (_is_scale(name) or not modules.isdisjoint(_parents(name))):
            problem = f"in {file} belongs to weights that are read, but is not applied: they are quantized or partial"
            raise BuildError(one_line(name), problem, ORIGINAL)


def _is_scale(name: str) -> bool:
    return name.startswith(TOWERS) and bool(_BESIDE.search(name))


def _parents(name: str) -> Iterator[str]:
    """Every module that a tensor lies in."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
