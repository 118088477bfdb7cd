"""Choosing ids with all that decides in tensors by slot: what a captured graph can run. Plain torch twin.

The arithmetic is that of ``kernels.sampler``; only where scores are exactly equal may the kernel keep all
of them where top-p keeps some.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from kernels.sampler import draw, philox_uniforms, probabilities

#: (slots, number of the draw) to [slots] float64 in [0, 1).
Draws = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Choices:
    """What decides one kind of id (text or code), by slot.

    ``seen`` [slots, ids] uint8, 1 where the penalty sees an id; ``greedy`` [slots] bool; ``penalty``,
    ``temperature``, ``top_p`` [slots] float32; ``top_k`` [slots] int32, 0 = all; ``seeds``, ``steps``
    [slots] int64; ``bans`` [slots, pairs, 2] int64: the second id of a pair may not follow the first,
    -1 = no pair; ``last`` [slots] int64 id before the one to be chosen. ``faulty`` [slots] bool is written: set
    where scores have no finite largest one. ``draws`` replaces the seeded random numbers of the twin (tests).
    """

    seen: torch.Tensor
    greedy: torch.Tensor
    penalty: torch.Tensor
    temperature: torch.Tensor
    top_k: torch.Tensor
    top_p: torch.Tensor
    seeds: torch.Tensor
    steps: torch.Tensor
    bans: torch.Tensor
    last: torch.Tensor
    faulty: torch.Tensor
    draws: Draws | None = None

    def uniforms(self, slots: torch.Tensor, number: int) -> torch.Tensor:
        """[rows] float64 random numbers of a draw."""
        if self.draws is not None:
            return self.draws(slots, number)
        seeds, steps = self.seeds[slots].cpu().numpy(), self.steps[slots].cpu().numpy()
        return torch.from_numpy(np.ascontiguousarray(philox_uniforms(seeds, steps, number + 1)[:, number])).to(
            slots.device
        )


def choose(
    scores: torch.Tensor,
    slots: torch.Tensor,
    choices: Choices,
    earlier: torch.Tensor | None,
    number: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """One id per row.

    Args:
        scores: [rows, ids] in any float type; may be changed.
        slots: [rows] int32.
        earlier: [rows, n] int64 ids that the penalty sees besides, or None.
        number: of the random number to use.
        out: [rows] int64 of any stride, becomes what is returned.

    Returns:
        [rows] int64; of scores that are not finite it may be any id.
    """
    at = slots.long()
    ready = processed(scores.float().contiguous(), at, choices, earlier)
    chosen = ready.argmax(dim=-1)  # a NaN counts as the largest
    broken = ~ready.gather(1, chosen[:, None])[:, 0].isfinite()
    choices.faulty.index_copy_(0, at, choices.faulty[at] | broken)
    drawn = (~choices.greedy[at]).nonzero()[:, 0]
    if len(drawn):
        rows = at[drawn]
        distribution = probabilities(
            ready[drawn],
            choices.temperature[rows][:, None],
            choices.top_k[rows].long()[:, None],
            choices.top_p[rows][:, None],
        )
        chosen[drawn] = draw(distribution, choices.uniforms(rows, number)).clamp(max=scores.shape[1] - 1)
    return chosen if out is None else out.copy_(chosen)


def processed(scores: torch.Tensor, at: torch.Tensor, choices: Choices, earlier: torch.Tensor | None) -> torch.Tensor:
    """Penalty and bans in place, for the rows that have any."""
    penalised = (choices.penalty[at] != 1).nonzero()[:, 0]
    if len(penalised):
        _penalise(scores, penalised, choices, at[penalised], earlier)
    if choices.bans.shape[1]:
        before, banned = choices.bans[at].unbind(-1)  # [rows, pairs] each
        rows, pairs = ((before >= 0) & (before == choices.last[at][:, None])).nonzero(as_tuple=True)
        if len(rows):
            scores[rows, banned[rows, pairs]] = -torch.inf
    return scores


def _penalise(
    scores: torch.Tensor, rows: torch.Tensor, choices: Choices, at: torch.Tensor, earlier: torch.Tensor | None
) -> None:
    """Repetition penalty in place: s * p where s < 0, s / p elsewhere, once for each id that a row has seen.

    Args:
        rows: [n] int64, those of ``scores`` that have a penalty. at: [n] int64, their slots.
    """
    seen, width = choices.seen[at], scores.shape[1]
    if earlier is not None and earlier.shape[1]:
        seen.scatter_(1, earlier[rows], 1)
    found = seen.view(-1).nonzero()[:, 0]  # few of all ids
    row = found.div(width, rounding_mode="floor")
    flat, entries = scores.view(-1), rows[row] * width + found - row * width
    values, penalty = flat[entries], choices.penalty[at][row]
    flat[entries] = torch.where(values < 0, values * penalty, values / penalty)
