"""A safetensors file written tensor by tensor, so that no more than one block is ever in memory."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import torch

ALIGNMENT = 8  # of the header, as the format asks
DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


class TensorFile:
    """Writes ``path`` under a temporary name and gives it its own when all tensors are there.

    Args:
        path: the file.
        shapes: names and shapes, in the order in which the tensors will come.
        dtype: of all tensors.
    """

    def __init__(self, path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> None:
        self.path, self._dtype = path, dtype
        self._sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
        self._expected = iter(self._sizes)
        self._temporary = path.with_name(path.name + ".part")
        self._file = self._temporary.open("wb")
        header = _header(shapes, self._sizes, DTYPE_NAMES[dtype])
        self._file.write(struct.pack("<Q", len(header)) + header)

    @property
    def total(self) -> int:
        """Bytes of all tensors."""
        return sum(self._sizes.values())

    def write(self, name: str, blocks: Iterable[torch.Tensor]) -> int:
        """Writes the next tensor, given as consecutive blocks of its rows, and returns its bytes."""
        expected = next(self._expected)
        assert name == expected, f"{name} comes where {expected} belongs"
        written = 0
        for block in blocks:
            assert block.dtype == self._dtype, f"{name} is {block.dtype}"
            written += self._file.write(block.contiguous().view(torch.uint8).numpy().data)
        assert written == self._sizes[name], f"{name}: {written} bytes instead of {self._sizes[name]}"
        return written

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        left = list(self._expected)
        if kind is None and not left:
            self._temporary.replace(self.path)
            return
        self._temporary.unlink()
        assert kind is not None, f"{left[0]} was never written"


def _header(shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, int], dtype: str) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, shape in shapes.items():
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + sizes[name]]}
        begin += sizes[name]
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % ALIGNMENT)
