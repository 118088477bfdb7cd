"""Short prompts as recorded passes: their rows are filled up to a bucket with rows of nobody.

A pass over a few rows takes the device no longer than it takes the host to queue it, launch by launch.
Rows of nobody have the slot of nobody, so keys and values go to its spare block.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kernels.paged_rows import TILE_ROWS, cut_tiles
from runtime.engines.kernel_stack import Rows
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.steps import FrameSteps
from runtime.graphs.executor import Executor, Work

BUCKETS = (32, 64, 128)  # rows of the backbone; more take the device longer than the host
CHUNKS = 8  # of one recorded pass at most: each may leave a tile that is not full


@dataclass(frozen=True, slots=True)
class Places:
    """Where the rows of packed chunks belong: slots [rows], positions [rows], and rows of each chunk."""

    slots: np.ndarray
    positions: np.ndarray
    lengths: Sequence[int]


def prompt_buckets(most: int) -> tuple[int, ...]:
    """Those that calls of at most so many rows come to."""
    return BUCKETS[: bisect_left(BUCKETS, most) + 1]


def tiles_for(rows: int) -> int:
    """Tiles that so many rows take at most: of all chunks and of the rows of nobody, one each may not be full."""
    return rows // TILE_ROWS + CHUNKS + 1


class PlacedRows:
    """Slots, positions and tiles in one tensor whose address never changes.

    Args:
        most: rows at once.
        nobody: slot of the rows that are left over.
    """

    def __init__(self, executor: Executor, most: int, nobody: int) -> None:
        self._executor, self._most, self._nobody = executor, most, nobody
        tiles = tiles_for(most)
        self._tensor = torch.zeros(2 * (most + tiles), dtype=torch.int32, device=executor.device)
        self._slots, self._positions, flat = self._tensor.split([most, most, 2 * tiles])
        self._tiles = flat.view(tiles, 2)

    def rows(self, size: int) -> Rows:
        """The first ``size`` rows, whatever is placed there."""
        return Rows(self._slots[:size], self._positions[:size], self._tiles[: tiles_for(size)], contexts=size)

    def place(self, places: Places, size: int) -> None:
        """Uploads rows for a pass of ``size``; those that are left over stand at nobody's first position."""
        count, most = len(places.slots), self._most
        values = np.zeros(len(self._tensor), np.int32)
        values[:most] = self._nobody
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
        self, executor: Executor, work: Callable[[int, Rows], None], buckets: Sequence[int], group: int, nobody: int
    ) -> None:
        self._executor, self._work, self._buckets, self._group = executor, work, tuple(buckets), group
        self._placed = PlacedRows(executor, buckets[-1] * group, nobody)
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


class RecordedPrefill:
    """Both stacks over prompts' rows in buffers whose addresses never change."""

    def __init__(self, executor: Executor, steps: FrameSteps, projections: Projections) -> None:
        self._steps, self._projections = steps, projections
        hidden, nobody = steps.state.hidden, steps.state.nobody
        ids, shape = steps.state.sizes.speech_ids, steps.backbone_stack.stack.shape
        buckets = prompt_buckets(shape.max_num_tokens)
        self._most = buckets[-1]
        # Rows as the backbone sees them, plain text rows, and what the backbone makes of the former.
        self._x, self._plain, self._hidden = hidden.new_zeros(3, self._most, hidden.shape[1])
        self._begin = torch.tensor(ids.bos, device=executor.device)
        self._backbone = RecordedPass(executor, self._backbone_pass, buckets, 1, nobody)
        self._speech = RecordedPass(executor, self._speech_pass, buckets, ids.group_size, nobody)

    def takes(self, lengths: Sequence[int]) -> bool:
        """Whether chunks of these lengths fit into a recorded pass."""
        return sum(lengths) <= self._most and len(lengths) <= CHUNKS

    def prepare(self) -> None:
        """Records all sizes now."""
        for recorded in (self._backbone, self._speech):
            recorded.prepare()

    def run(self, x: torch.Tensor, plain: torch.Tensor, places: Places, spoken: Places | None) -> None:
        """Queues the rows x, plain [rows, H] of chunks that ``takes`` accepted.

        Args:
            places: of the rows in the backbone.
            spoken: of the first rows in the speech head, a group each.
        """
        count, size = len(x), self._backbone.bucket(len(x))
        for buffer, rows in ((self._x, x), (self._plain, plain)):
            buffer[:count].copy_(rows)
            buffer[count:size].zero_()
        self._backbone.run(places)
        if spoken is not None:
            self._speech.run(spoken)

    def _backbone_pass(self, size: int, rows: Rows) -> None:
        stack = self._steps.backbone_stack
        self._hidden[:size].copy_(stack.stack(self._x[:size], rows, stack.tables))

    def _speech_pass(self, size: int, rows: Rows) -> None:
        inputs = speech_rows(self._projections, self._hidden[:size], self._plain[:size], self._begin)
        self._steps.speech_stack.stack(inputs, rows, self._steps.speech_stack.tables, store_only=True)


def speech_rows(
    projections: Projections, hidden: torch.Tensor, plain: torch.Tensor, begin: torch.Tensor
) -> torch.Tensor:
    """Every sub-position of prompt rows [rows, H] after the begin code: [rows * group, W]."""
    return projections.speech_inputs(projections.spread(hidden, plain).flatten(0, 1), begin)
