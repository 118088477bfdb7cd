"""Plays a case on one engine and keeps what it computed, by trace and position."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from builders.parity.cases import Case, Join, Leave, Piece, Step
from runtime.engines.base import Engine
from runtime.engines.kv_cache import KvCache
from runtime.engines.packer import Packer, Row

SHUFFLE_SEED = 5


@dataclass(frozen=True, slots=True)
class Trace:
    """A sequence whose input rows are known: ``rows`` [positions, hidden], the first ``prompt`` are its prompt."""

    rows: torch.Tensor
    prompt: int

    def row(self, slot: int, piece: Piece) -> Row:
        """The piece as the packer takes it. A prompt of one chunk after another is one prompt."""
        is_context = piece.begin < self.prompt
        assert not is_context or piece.begin + piece.length <= self.prompt, f"{piece} crosses the end of its prompt"
        return Row(slot, piece.begin, piece.length, self.prompt, is_context)


@dataclass(frozen=True, slots=True)
class Output:
    """What one piece gave: ``hidden`` [length, hidden] of all its rows, None where the engine has no such output
    for every row; ``logits`` [output] of its last row."""

    piece: Piece
    hidden: torch.Tensor | None
    logits: torch.Tensor


class Player:
    """One engine with packer and cache of its own."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def play(self, case: Case, traces: Sequence[Trace]) -> list[Output]:
        """Runs a script from an empty cache; outputs are copies on the CPU."""
        shape = self.engine.shape
        order = list(range(shape.num_blocks))
        if case.shuffled:
            random.Random(SHUFFLE_SEED).shuffle(order)
        cache = KvCache(shape, order)
        packer = Packer(shape, cache, self.engine.pool_address())
        slots: dict[int, int] = {}
        outputs: list[Output] = []
        for action in case.actions:
            if isinstance(action, Join):
                slots[action.trace] = action.slot
                cache.allocate(action.slot, len(traces[action.trace].rows))
            elif isinstance(action, Leave):
                cache.release(slots.pop(action.trace))
            else:
                outputs += self._step(action, traces, slots, packer)
        return outputs

    def _step(self, step: Step, traces: Sequence[Trace], slots: dict[int, int], packer: Packer) -> list[Output]:
        pieces = step.pieces
        inputs = torch.cat([traces[p.trace].rows[p.begin : p.begin + p.length] for p in pieces])
        bindings = packer.pack([traces[p.trace].row(slots[p.trace], p) for p in pieces])
        found = self.engine.run(inputs, bindings)
        logits = found.logits.cpu().clone()
        if len(found.hidden_states) != len(inputs):
            return [Output(piece, None, row) for piece, row in zip(pieces, logits, strict=True)]
        hidden = found.hidden_states.float().cpu().clone().split([p.length for p in pieces])
        return [Output(*each) for each in zip(pieces, hidden, logits, strict=True)]
