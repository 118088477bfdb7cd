"""A mixture of experts: gated MLPs side by side, of which each row takes a few. Plain torch twins of the kernels.

Rows and experts meet in pairs: pair ``row * taken + n`` is the row's n-th expert. Pairs are sorted by expert, so that
each expert that is taken is read once, whatever the number of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from kernels.decoder import swiglu
from kernels.linear import Matrix, product
from kernels.quantised import scaled_product


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of one layer.

    ``router`` [experts, hidden] stays in the model's type. ``gate_up`` is a matrix of [experts * 2 * width, hidden],
    the gates of an expert before its ups, ``down`` one of [experts * hidden, width]. Each row takes ``taken`` experts;
    ``normalised``: their weights are made to sum to one.
    """

    router: torch.Tensor
    gate_up: Matrix
    down: Matrix
    taken: int
    normalised: bool


@dataclass(frozen=True, slots=True)
class Grouping:
    """Pairs by expert.

    ``order`` [pairs] int32: pairs, sorted by expert, those of one expert as they came. ``groups`` [groups, 3] int32:
    an expert, where its pairs begin in ``order`` and where they end; there are as many as experts or pairs, whichever
    are fewer, and those without pairs are empty. ``experts``: of the layer.
    """

    order: torch.Tensor
    groups: torch.Tensor
    experts: int


class ExpertOps(Protocol):
    """What a layer of experts consists of, besides its router's product."""

    def route(self, scores: torch.Tensor, taken: int, normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Chooses the experts of every row."""

    def group_pairs(self, ids: torch.Tensor, experts: int) -> Grouping:
        """Sorts pairs by expert."""

    def grouped_product(
        self, x: torch.Tensor, matrix: Matrix, grouping: Grouping, spread: int, gated: bool = False
    ) -> torch.Tensor:
        """Multiplies every pair's row with its expert's matrix."""

    def mix_experts(self, parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Adds up what the experts of each row gave."""


def run_experts(ops: ExpertOps, x: torch.Tensor, experts: Experts) -> torch.Tensor:
    """x [rows, hidden] through the experts of each row, to [rows, hidden]."""
    ids, weights = ops.route(product(x, experts.router), experts.taken, experts.normalised)
    grouping = ops.group_pairs(ids, len(experts.router))
    active = ops.grouped_product(x, experts.gate_up, grouping, experts.taken, gated=True)
    return ops.mix_experts(ops.grouped_product(active, experts.down, grouping, 1), weights)


def route(scores: torch.Tensor, taken: int, normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The experts with the highest probabilities; of equal ones the first.

    Args:
        scores: [rows, experts] of the router.

    Returns:
        Ids [rows, taken] int32 and weights [rows, taken] float32, the highest first.
    """
    probabilities, ids = torch.softmax(scores, dim=-1, dtype=torch.float32).sort(dim=-1, descending=True, stable=True)
    weights = probabilities[:, :taken]
    if normalised:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return ids[:, :taken].int(), weights.contiguous()


def group_pairs(ids: torch.Tensor, experts: int) -> Grouping:
    """Sorts the pairs of ids [rows, taken]; groups stand in the order of experts, empty ones last if pairs are few."""
    flat = ids.flatten().long()
    counts = torch.zeros(experts, dtype=torch.int64, device=ids.device).index_add_(0, flat, torch.ones_like(flat))
    ends = counts.cumsum(0)
    groups = torch.stack([torch.arange(experts, device=ids.device), ends - counts, ends], dim=1)
    if len(flat) < experts:
        groups = groups[(counts == 0).int().argsort(stable=True)][: len(flat)]
    return Grouping(flat.argsort(stable=True).int(), groups.int(), experts)


def grouped_product(
    x: torch.Tensor, matrix: Matrix, grouping: Grouping, spread: int, gated: bool = False
) -> torch.Tensor:
    """Every pair's row times its expert's part of a ``Dense`` or ``WeightOnly`` matrix.

    Args:
        x: [pairs / spread, in]; the row of a pair is its number divided by ``spread``.
        gated: the part gives gate and up, which become silu(gate) * up.

    Returns:
        [pairs, out] in the order of the pairs, not of the experts.
    """
    stored: Any = matrix
    weight, scale = stored.weight, getattr(stored, "scale", None)
    outputs = len(weight) // grouping.experts
    order = grouping.order.long()
    rows = x[order // spread]
    out = torch.empty(len(order), outputs // 2 if gated else outputs, dtype=x.dtype, device=x.device)
    for expert, begin, end in grouping.groups.tolist():
        if begin == end:
            continue
        part = slice(expert * outputs, (expert + 1) * outputs)
        if scale is None:
            y = product(rows[begin:end], weight[part])
        else:
            y = scaled_product(rows[begin:end], weight[part], scale[part])
        out[order[begin:end]] = swiglu(y) if gated else y
    return out


def mix_experts(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """parts [rows * taken, hidden] times weights [rows, taken], added in float32 in that order: [rows, hidden]."""
    rows, taken = weights.shape
    each = parts.view(rows, taken, -1).float() * weights[:, :, None]
    total = each[:, 0]
    for number in range(1, taken):  # a sum over the axis may add in another order for other numbers of rows
        total = total + each[:, number]
    return total.to(parts.dtype)
