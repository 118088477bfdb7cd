"""Prompt chunks into both caches, all but the last position of each prompt, which is the first frame's.

A few rows run in a recorded pass (``recorded_prefill``). More run as they come: there is enough arithmetic in
them to hide the host behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kernels.paged_rows import cut_tiles
from runtime.engines.kernel_stack import Rows
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.steps import FrameSteps
from runtime.frames.rows import Places, RecordedPrefill, speech_rows
from runtime.graphs.device import bring
from runtime.graphs.executor import Executor
from runtime.scheduling.scheduler import Chunk

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
        slots, positions, tiles = (bring(values.astype(np.int32), self._device) for values in arrays)
        return Rows(slots, positions, tiles, contexts=len(slots))


def _places(parts: Sequence[Part], group: int) -> Places:
    """Rows of the parts in a stack with so many positions for one of theirs."""
    lengths = [group * length for _, length in parts]
    slots = np.repeat([c.stream.slot for c, _ in parts], lengths)
    positions = [group * c.begin + np.arange(n) for (c, _), n in zip(parts, lengths, strict=True)]
    return Places(slots, np.concatenate(positions), lengths)
