"""The device work of one frame as functions over slots.

Backbone step with choice of the text id; a group of codes with their feedback (the answer's rules are
``SlotState.accept``). Each reads and writes ``SlotState`` and the caches only. Source of the rules:
reference, sections 2.4 and 2.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.linear import Matrix
from kernels.ops import Ops
from runtime.engines.stack import DecoderStack, Rows
from runtime.frames.state import SlotState


@dataclass(frozen=True, slots=True)
class FrameWeights:
    """What stands around the two stacks: tables [ids, H] and matrices, named as in ``models.speech_head``."""

    text: torch.Tensor
    codebook: torch.Tensor
    feedback: Matrix
    spread: Matrix
    spread_bias: torch.Tensor
    narrow: Matrix
    text_head: Matrix
    speech_head: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class StackTables:
    """A stack and the block tables of all slots [slots + 1, 2, blocks] int32."""

    stack: DecoderStack
    tables: torch.Tensor

    @classmethod
    def of(cls, stack: DecoderStack, slots: int) -> StackTables:
        """All tables empty; the slot of nobody has the spare block, whatever its position."""
        shape, memory = stack.shape, stack.memory
        tables = torch.zeros(slots + 1, 2, shape.max_blocks_per_seq, dtype=torch.int32, device=memory.device)
        spare = shape.num_blocks * shape.num_layers * 2
        tables[slots, 0], tables[slots, 1] = spare, spare + 1
        return cls(stack, tables)


class FrameSteps:
    """Both steps. ``slots`` are [rows] int32 everywhere."""

    def __init__(
        self, backbone: StackTables, speech: StackTables, weights: FrameWeights, state: SlotState, ops: Ops
    ) -> None:
        self.backbone_stack, self.speech_stack = backbone, speech
        self.weights, self.state, self._ops = weights, state, ops
        self._group = state.sizes.speech_ids.group_size

    def backbone(self, slots: torch.Tensor) -> None:
        """One position of every slot: hidden row and chosen text id."""
        state, w, at = self.state, self.weights, slots.long()
        x = self._ops.group_embedding(
            w.text, state.text_id[at], w.codebook, state.codes[at], state.feeding[at], w.feedback
        )
        rows = Rows(slots, state.position[at].int())
        hidden = self.backbone_stack.stack(x, rows, self.backbone_stack.tables)
        state.hidden.index_copy_(0, at, hidden)
        # Number ``group`` of a step's random numbers is the text's, after those of the codes.
        logits = w.text_head(hidden)
        chosen = self._ops.choose(logits, slots, state.text, None, self._group)
        state.faulty.index_copy_(0, at, ~logits.amax(dim=-1).isfinite())  # amax hands a NaN on
        state.chosen.index_copy_(0, at, chosen.clamp(0, logits.shape[1] - 1))

    def speech(self, slots: torch.Tensor) -> None:
        """A group of every slot: one code after another, each fed by the one before."""
        state, w, at = self.state, self.weights, slots.long()
        rows = self._ops.add_embedding(state.hidden[at], w.text, state.text_id[at])
        spread = (w.spread(rows) + w.spread_bias).view(len(rows), self._group, -1)
        first = state.position[at] * self._group
        previous = state.codes[at, -1]
        group, largest = torch.empty_like(state.codes[at]), []
        for number in range(self._group):
            x = w.narrow(self._ops.add_embedding(spread[:, number], w.codebook, previous))
            logits = self.speech_stack.stack(x, Rows(slots, (first + number).int()), self.speech_stack.tables)
            for matrix in w.speech_head:
                logits = matrix(logits)
            previous = self._ops.choose(logits, slots, state.speech, group[:, :number], number)
            previous = previous.clamp(0, logits.shape[1] - 1)  # of scores that are not finite it may be anything
            largest.append(logits.amax(dim=-1))
            group[:, number] = previous
        faulty = ~torch.stack(largest).isfinite().all(dim=0)
        state.faulty.index_copy_(0, at, state.faulty[at] | faulty)
        state.codes.index_copy_(0, at, group)
