"""Work recorded by batch size: the next larger bucket runs, and rows that are left over are padding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np
import torch

from runtime.graphs.executor import Executor, Work

SMALL = (1, 2, 4)
STEP = 8  # between larger buckets: at most this many rows of padding


def buckets(most: int) -> tuple[int, ...]:
    """Batch sizes to record for, the last one ``most``."""
    if most < 1:
        raise ValueError(f"streams: {most} is not positive")
    sizes = [size for size in SMALL if size < most]
    return (*sizes, *range(STEP, most, STEP), most)


class PlacedSlots:
    """Numbers of slots in a tensor whose address never changes; uploaded only when they are others.

    Args:
        most: slots at once.
        padding: stands in all places that are left over.
    """

    def __init__(self, executor: Executor, most: int, padding: int) -> None:
        self._executor, self._padding = executor, padding
        self.tensor = torch.full((most,), padding, dtype=torch.int32, device=executor.device)
        self._placed: list[int] = []

    def place(self, slots: Sequence[int]) -> torch.Tensor:
        """[slots] int32."""
        if list(slots) != self._placed:
            filled = np.full(len(self.tensor), self._padding, np.int32)
            filled[: len(slots)] = slots
            self._executor.upload(self.tensor, filled)
            self._placed = list(slots)
        return self.tensor[: len(slots)]


class Batch:
    """One kind of work over a set of slots, recorded for every bucket.

    Args:
        work: over [rows] int32 slots.
        most: slots at once.
        padding: slot of the rows that are left over.
    """

    def __init__(self, executor: Executor, work: Callable[[torch.Tensor], None], most: int, padding: int) -> None:
        self._executor, self._work = executor, work
        self._buckets = buckets(most)
        self._slots = PlacedSlots(executor, most, padding)
        self._recorded: dict[int, Work] = {}

    def bucket(self, rows: int) -> int:
        """The recorded size that so many rows run in."""
        return self._buckets[bisect_left(self._buckets, rows)]

    def prepare(self) -> None:
        """Records all sizes now, the largest first: smaller ones then fit into its memory."""
        for size in reversed(self._buckets):
            self._record(size)

    def run(self, slots: Sequence[int]) -> None:
        """Queues the work for these slots."""
        size = self.bucket(len(slots))
        if size not in self._recorded:
            self._record(size)
        self._slots.place(slots)
        self._recorded[size]()

    def _record(self, size: int) -> None:
        work, slots = self._work, self._slots.tensor[:size]
        self._recorded[size] = self._executor.record(lambda: work(slots), self._idle)

    def _idle(self) -> None:
        self._slots.place(())
