"""The device work of one frame as functions over slots.

Backbone step with choice of the text id; a group of codes with their feedback (the answer's rules are
``kernels.accept``). Each reads and writes ``SlotState`` and the caches only.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kernels.linear import Matrix
from kernels.ops import Ops
from runtime.engines.kernel_stack import DecoderStack, Rows
from runtime.families.fun_audio_chat.decisions import Decisions, FrameTables
from runtime.families.fun_audio_chat.state import SlotState


@dataclass(frozen=True, slots=True)
class FrameWeights(FrameTables):
    """Tables and heads of both stacks."""

    text_head: Matrix
    speech_head: tuple[Matrix, ...]


@dataclass(frozen=True, slots=True)
class StackTables:
    """A stack and the block tables of all slots [slots + 1, 2, blocks] int32."""

    stack: DecoderStack
    tables: torch.Tensor

    @classmethod
    def of(cls, stack: DecoderStack, slots: int) -> StackTables:
        """All tables empty; the padding slot has the spare block, whatever its position."""
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
        self.weights, self.state = weights, state
        self.decisions = Decisions(weights, state, ops)
        self._group = state.sizes.speech_ids.group_size
        self._numbers = torch.arange(self._group, device=state.position.device)

    def backbone(self, slots: torch.Tensor) -> None:
        """One position of every slot: hidden row and chosen text id."""
        rows = Rows(slots, self.state.position[slots.long()].int())
        hidden = self.backbone_stack.stack(self.decisions.embed(slots), rows, self.backbone_stack.tables)
        self.decisions.take_text(slots, hidden, self.weights.text_head(hidden))

    def speech(self, slots: torch.Tensor) -> None:
        """A group of every slot."""
        speech, first = self.speech_stack, self.state.position[slots.long()] * self._group
        positions = (first + self._numbers[:, None]).int()  # [group, rows]

        def logits_of(x: torch.Tensor, number: int) -> torch.Tensor:
            logits = speech.stack(x, Rows(slots, positions[number]), speech.tables)
            for matrix in self.weights.speech_head:
                logits = matrix(logits)
            return logits

        self.decisions.take_group(slots, logits_of)
