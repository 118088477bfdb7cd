"""Short prompts as recorded passes: their rows are filled up to a bucket with padding.

A pass over a few rows takes the device no longer than it takes the host to queue it, launch by launch.
Padding rows have the padding slot, so their keys and values go to its spare block.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.paged_rows import TILE_ROWS, cut_tiles
from runtime.engines.kernel_stack import Rows
from runtime.graphs.executor import Executor, Work

CHUNKS = 8  # of one recorded pass at most: each may leave a tile that is not full


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of packed chunks belong: slots [rows], positions [rows], and rows of each chunk."""

    slots: np.ndarray
    positions: np.ndarray
    lengths: Sequence[int]


def tiles_for(rows: int) -> int:
    """Tiles that so many rows take at most: of all chunks and of the padding, one each may not be full."""
    return rows // TILE_ROWS + CHUNKS + 1


class PlacedRows:
    """Slots, positions and tiles in one tensor whose address never changes.

    Args:
        most: rows at once.
        padding: slot of the rows that are left over.
    """

    def __init__(self, executor: Executor, most: int, padding: int) -> None:
        self._executor, self._most, self._padding = executor, most, padding
        tiles = tiles_for(most)
        self._tensor = torch.zeros(2 * (most + tiles), dtype=torch.int32, device=executor.device)
        self._slots, self._positions, flat = self._tensor.split([most, most, 2 * tiles])
        self._tiles = flat.view(tiles, 2)

    def rows(self, size: int) -> Rows:
        """The first ``size`` rows, whatever is placed there."""
        return Rows(self._slots[:size], self._positions[:size], self._tiles[: tiles_for(size)], contexts=size)

    def place(self, places: Places, size: int) -> None:
        """Uploads rows for a pass of ``size``; those that are left over stand at the padding slot's first position."""
        count, most = len(places.slots), self._most
        values = np.zeros(len(self._tensor), np.int32)
        values[:most] = self._padding
        values[:count] = places.slots
        values[most : most + count] = places.positions
        tiles = np.array(cut_tiles([*places.lengths, size - count]), np.int32).reshape(-1)
        values[2 * most : 2 * most + len(tiles)] = tiles  # the others have no rows
        self._executor.upload(self._tensor, values)


class RecordedPass:
    """One kind of pass, recorded for every bucket.

    Args:
        work: over the first rows of the caller's buffers and a bucket of theirs.
        buckets: counted in the backbone's rows. group: rows of this pass for one of them.
    """

    def __init__(
        self, executor: Executor, work: Callable[[int, Rows], None], buckets: Sequence[int], group: int, padding: int
    ) -> None:
        self._executor, self._work, self._buckets, self._group = executor, work, tuple(buckets), group
        self._placed = PlacedRows(executor, buckets[-1] * group, padding)
        self._recorded: dict[int, Work] = {}

    def bucket(self, rows: int) -> int:
        """The recorded size that so many of the backbone's rows run in."""
        return self._buckets[bisect_left(self._buckets, rows)]

    def prepare(self) -> None:
        """Records all sizes now, the largest first: smaller ones then fit into its memory."""
        for size in reversed(self._buckets):
            self._record(size)

    def run(self, places: Places) -> None:
        """Queues the pass over these rows."""
        size = self.bucket(len(places.slots) // self._group)
        if size not in self._recorded:
            self._record(size)
        self._placed.place(places, size * self._group)
        self._recorded[size]()

    def _record(self, size: int) -> None:
        rows = self._placed.rows(size * self._group)
        self._recorded[size] = self._executor.record(lambda: self._work(size, rows), lambda: self._idle(size))

    def _idle(self, size: int) -> None:
        nothing = np.zeros(0, np.int32)
        self._placed.place(Places(nothing, nothing, ()), size * self._group)
