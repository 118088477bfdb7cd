"""Many small tensors in one block of memory: where each lies, and which of them changed.

One block is one allocation, has addresses that never move, and takes one copy where several neighbours
changed together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch

from runtime.engines.trtllm.spec import TensorSpec
from runtime.graphs.device import ALIGNMENT


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes ``begin .. begin + size - 1`` of an arena: room for the largest shape of one tensor."""

    begin: int
    size: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Regions by name, in the order of their addresses, and the size of the whole."""

    regions: Mapping[str, Region]
    size: int


def plan_layout(specs: Sequence[TensorSpec]) -> Layout:
    """Room for the largest shape of every tensor, each aligned, smallest first.

    Small tensors change together at nearly every step: side by side they take one copy, and the large block
    table behind them is copied only as far as it is used.
    """
    sizes = {spec.name: prod(spec.ranges[2]) * np.dtype(spec.dtype).itemsize for spec in specs}
    regions, end = {}, 0
    for name in sorted(sizes, key=lambda name: sizes[name]):
        regions[name] = Region(end, sizes[name])
        end += -(-sizes[name] // ALIGNMENT) * ALIGNMENT
    return Layout(regions, end)


class HostArena:
    """Host tensors of one step in one block, and which arrays they hold.

    An array that is already here is not written again. So arrays must not be changed after they were
    handed over, which is what ``runtime.engines.packer`` promises.
    """

    def __init__(self, layout: Layout, memory: torch.Tensor) -> None:
        assert len(memory) >= layout.size, "less memory than the layout needs"
        self.layout, self.memory = layout, memory
        self._bytes = memory.numpy()
        self._held: dict[str, np.ndarray] = {}

    def address(self, name: str) -> int:
        """Where a tensor lies."""
        return self.memory.data_ptr() + self.layout.regions[name].begin

    def write(self, name: str, array: np.ndarray) -> None:
        """Stores an array whose shape was checked."""
        if self._held.get(name) is array:
            return
        begin = self.layout.regions[name].begin
        self._bytes[begin : begin + array.nbytes].view(array.dtype)[:] = array.ravel()
        self._held[name] = array


def copy_runs(layout: Layout, changed: Mapping[str, int]) -> list[slice]:
    """Byte ranges that bring the changed tensors over, neighbours joined.

    Args:
        changed: bytes in use of every tensor that changed, by name.
    """
    runs: list[slice] = []
    joined = False
    for name, region in layout.regions.items():
        if name not in changed:
            joined = False
            continue
        end = region.begin + changed[name]
        if joined:
            runs[-1] = slice(runs[-1].start, end)
        else:
            runs.append(slice(region.begin, end))
        joined = True
    return runs
