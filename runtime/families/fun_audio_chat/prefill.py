"""Prompt chunks into both caches, all but the last position of each prompt, which is the first frame's.

A few rows run in a recorded pass (``RecordedPrefill``). More run as they come: there is enough arithmetic in
them to hide the host behind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch

from kernels.paged_rows import cut_tiles
from runtime.engines.kernel_stack import Rows
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.steps import FrameSteps
from runtime.frames.rows import CHUNKS, Places, RecordedPass
from runtime.graphs.device import to_device
from runtime.graphs.executor import Executor
from runtime.scheduling.scheduler import Chunk

BUCKETS = (32, 64, 128)  # rows of the backbone in a recorded pass; more take the device longer than the host
Part = tuple[Chunk, int]  # and how many of its rows are prefilled


class Prefill:
    """Chunks of several prompts as one pass of each stack."""

    def __init__(self, executor: Executor, steps: FrameSteps, projections: Projections) -> None:
        self._steps, self._projections = steps, projections
        self._device = steps.state.hidden.device
        self._begin = torch.tensor(steps.state.sizes.speech_ids.bos, device=self._device)
        self._group = steps.state.sizes.speech_ids.group_size
        self._recorded = RecordedPrefill(executor, steps, projections)

    def prepare(self) -> None:
        """Records what is recorded."""
        self._recorded.prepare()

    def run(self, chunks: Sequence[Chunk]) -> None:
        """Queues the chunks' rows. Speaking streams come first, so that their rows are the first ones."""
        parts = [(chunk, chunk.length - chunk.last) for chunk in chunks]
        parts = [(chunk, length) for chunk, length in parts if length]
        parts.sort(key=lambda part: not part[0].stream.params.speaks)
        if not parts:
            return
        pairs = [self._projections.embed_prompt(c.stream.prompt, c.begin, length) for c, length in parts]
        x, plain = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        speaking = [part for part in parts if part[0].stream.params.speaks]
        places = _places(parts, 1)
        spoken = _places(speaking, self._group) if speaking else None
        if self._recorded.takes(places.lengths):
            self._recorded.run(x, plain, places, spoken)
        else:
            self._run_unrecorded(x, plain, places, spoken)

    def _run_unrecorded(self, x: torch.Tensor, plain: torch.Tensor, places: Places, spoken: Places | None) -> None:
        backbone, speech = self._steps.backbone_stack, self._steps.speech_stack
        hidden = backbone.stack(x, self._rows(places), backbone.tables, store_only=spoken is None)
        if spoken is not None:
            count = len(spoken.slots) // self._group
            inputs = speech_rows(self._projections, hidden[:count], plain[:count], self._begin)
            speech.stack(inputs, self._rows(spoken), speech.tables, store_only=True)

    def _rows(self, places: Places) -> Rows:
        arrays = places.slots, places.positions, np.array(cut_tiles(places.lengths))
        slots, positions, tiles = (to_device(values.astype(np.int32), self._device) for values in arrays)
        return Rows(slots, positions, tiles, contexts=len(slots))


def _places(parts: Sequence[Part], group: int) -> Places:
    """Rows of the parts in a stack with so many positions for one of theirs."""
    lengths = [group * length for _, length in parts]
    slots = np.repeat([c.stream.slot for c, _ in parts], lengths)
    positions = [group * c.begin + np.arange(n) for (c, _), n in zip(parts, lengths, strict=True)]
    return Places(slots, np.concatenate(positions), lengths)


def prompt_buckets(most: int) -> tuple[int, ...]:
    """Those that calls of at most so many rows come to."""
    return BUCKETS[: bisect_left(BUCKETS, most) + 1]


class RecordedPrefill:
    """Both stacks over prompts' rows in buffers whose addresses never change."""

    def __init__(self, executor: Executor, steps: FrameSteps, projections: Projections) -> None:
        self._steps, self._projections = steps, projections
        hidden, padding = steps.state.hidden, steps.state.padding
        ids, shape = steps.state.sizes.speech_ids, steps.backbone_stack.stack.shape
        buckets = prompt_buckets(shape.max_num_tokens)
        self._most = buckets[-1]
        # Rows as the backbone sees them, plain text rows, and what the backbone makes of the former.
        self._x, self._plain, self._hidden = hidden.new_zeros(3, self._most, hidden.shape[1])
        self._begin = torch.tensor(ids.bos, device=executor.device)
        self._backbone = RecordedPass(executor, self._backbone_pass, buckets, 1, padding)
        self._speech = RecordedPass(executor, self._speech_pass, buckets, ids.group_size, padding)

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
