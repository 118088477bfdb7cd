"""How a frame's ids are chosen and fed back, in tensors by slot: nothing here waits for the device.

One implementation for the kernels' stacks (``steps``), whose recordings call it, and for compiled engines
(``engine_model``), between whose calls it stands. Source of the rules: reference, sections 2.4 and 2.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from kernels.linear import Dense, Matrix
from kernels.ops import Ops
from runtime.families.fun_audio_chat.projections import TABLES
from runtime.families.fun_audio_chat.state import SlotState
from runtime.families.fun_audio_chat.tensors import CODEBOOK

#: (rows [rows, W] of sub-position ``number``, number) to logits [rows, codes].
LogitsOf = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class FrameTables:
    """What stands around the two stacks but for their heads: tables [ids, H] and matrices.

    Named as in ``models.speech_head``.
    """

    text: torch.Tensor
    codebook: torch.Tensor
    feedback: Matrix
    spread: Matrix
    spread_bias: torch.Tensor
    narrow: Matrix


def frame_tables(weights: Mapping[str, torch.Tensor], matrix: Callable[[torch.Tensor], Matrix] = Dense) -> FrameTables:
    """Tables stay as they are, matrices are made by ``matrix``; the feedback of codes is always dense."""
    text, codebook, feedback, spread, bias, narrow = (weights[name] for name in TABLES)
    assert codebook is weights[CODEBOOK]
    return FrameTables(text, codebook, Dense(feedback), matrix(spread), bias, matrix(narrow))


class Decisions:
    """Reads and writes ``state``; ``slots`` are [rows] int32 everywhere."""

    def __init__(self, tables: FrameTables, state: SlotState, ops: Ops) -> None:
        self.tables, self.state, self.ops = tables, state, ops
        self._group = state.sizes.speech_ids.group_size

    def embed(self, slots: torch.Tensor) -> torch.Tensor:
        """Backbone rows [rows, H] of the slots' last ids."""
        tables, state, at = self.tables, self.state, slots.long()
        return self.ops.group_embedding(
            tables.text, state.text_id[at], tables.codebook, state.codes[at], state.feeding[at], tables.feedback
        )

    def accept(self, slots: torch.Tensor, found: torch.Tensor) -> None:
        """Moves the slots on by one frame, see ``kernels.accept``.

        Args:
            found: [rows, 1 + group] int64, becomes text id and codes as they were chosen; NOT_FINITE as the text id
                of a faulty slot.
        """
        self.ops.accept(self.state.answers, self.state.rules, slots, found)

    def take_text(self, slots: torch.Tensor, hidden: torch.Tensor, logits: torch.Tensor) -> None:
        """Keeps the hidden rows [rows, H] of a backbone step and chooses from its logits [rows, V]."""
        at = slots.long()
        self.state.hidden.index_copy_(0, at, hidden)
        # Number ``group`` of a step's random numbers is the text's, after those of the codes.
        self.state.chosen.index_copy_(0, at, self.ops.choose(logits, slots, self.state.text, None, self._group))

    def take_group(self, slots: torch.Tensor, logits_of: LogitsOf) -> None:
        """A group of every slot: one code after another, each fed by the one before."""
        tables, state, at = self.tables, self.state, slots.long()
        rows = self.ops.add_embedding(state.hidden[at], tables.text, state.text_id[at])
        spread = (tables.spread(rows) + tables.spread_bias).view(len(rows), self._group, -1)
        before = state.codes[at]
        previous, group = before[:, -1], torch.empty_like(before)
        for number in range(self._group):
            x = tables.narrow(self.ops.add_embedding(spread[:, number], tables.codebook, previous))
            previous = group[:, number]
            self.ops.choose(logits_of(x, number), slots, state.speech, group[:, :number], number, previous)
        state.codes.index_copy_(0, at, group)
