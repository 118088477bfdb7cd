"""Prompt chunks into both caches, all but the last position of each prompt, which is the first frame's.

Runs as it comes, unrecorded: every chunk has a length of its own, and there is enough arithmetic in it to
hide the host behind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kernels.paged_rows import cut_tiles
from runtime.engines.device import bring
from runtime.engines.stack import Rows
from runtime.frames.steps import FrameSteps
from runtime.models.speech_head import Projections
from runtime.scheduler import Chunk


class Prefill:
    """Chunks of several prompts as one pass of each stack."""

    def __init__(self, steps: FrameSteps, projections: Projections) -> None:
        self._steps, self._projections = steps, projections
        self._device = steps.state.hidden.device
        self._begin = torch.tensor(steps.state.sizes.speech_ids.bos, device=self._device)

    def run(self, chunks: Sequence[Chunk]) -> None:
        """Queues the chunks' rows. Speaking streams come first, so that their rows are the first ones."""
        parts = [(chunk, chunk.length - chunk.last) for chunk in chunks]
        parts = [(chunk, length) for chunk, length in parts if length]
        parts.sort(key=lambda part: not part[0].stream.params.speaks)
        if not parts:
            return
        pairs = [self._projections.embed_prompt(c.stream.prompt, c.begin, length) for c, length in parts]
        x, plain = (torch.cat(rows) for rows in zip(*pairs, strict=True))
        spoken = [(c, length) for c, length in parts if c.stream.params.speaks]
        backbone = self._steps.backbone_stack
        hidden = backbone.stack(x, self._rows(parts, 1), backbone.tables, store_only=not spoken)
        if spoken:
            count = sum(length for _, length in spoken)
            self._speak(hidden[:count], plain[:count], spoken)

    def _speak(self, hidden: torch.Tensor, plain: torch.Tensor, parts: Sequence[tuple[Chunk, int]]) -> None:
        """The speech head's cache: every sub-position after the begin code."""
        ids = self._steps.state.sizes.speech_ids
        spread = self._projections.spread(hidden, plain).flatten(0, 1)
        speech = self._steps.speech_stack
        inputs = self._projections.speech_inputs(spread, self._begin)
        speech.stack(inputs, self._rows(parts, ids.group_size), speech.tables, store_only=True)

    def _rows(self, parts: Sequence[tuple[Chunk, int]], group: int) -> Rows:
        lengths = [group * length for _, length in parts]
        slots = np.repeat([c.stream.slot for c, _ in parts], lengths)
        positions = np.concatenate([group * c.begin + np.arange(n) for (c, _), n in zip(parts, lengths, strict=True)])
        tiles = np.array(cut_tiles(lengths))
        found = [bring(values.astype(np.int32), self._device) for values in (slots, positions, tiles)]
        return Rows(found[0], found[1], found[2], contexts=len(slots))
