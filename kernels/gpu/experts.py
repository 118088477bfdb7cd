"""A mixture of experts: routing, sorting by expert, grouped products, weighted sum. Twins: ``kernels.experts``.

Grids depend on the number of rows alone, and nothing asks the host, so all of it can be recorded. A program of the
grouped product has one tile of outputs of one expert and takes all of the expert's rows: a weight is read from
memory once, and experts that no row takes are not read at all.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.experts import Grouping
from kernels.linear import Matrix

PAIRS = 1024  # of a step over all pairs
FEW_PAIRS = 32  # of a step that compares them with all experts
FEW_ROWS, MANY_ROWS = 16, 32  # of a tile: the least that a tensor core product takes, and for prompts
AVERAGE = 8  # rows of an expert from which on tiles have many: of the released sizes in the largest recorded prompt
GATED_OUTPUTS, OUTPUTS = 16, 32  # of a tile: as many bytes of weights either way
DEPTH = 128  # of a tile, the same for all numbers of rows: a row is summed in one order
WARPS, STAGES = 4, 4
MIX_BLOCK = 1024
FAR = 1 << 30  # stands for the expert of pairs that are none


@triton.jit
def _route(scores, ids, weights, experts, NORMALISED: tl.constexpr, TAKEN: tl.constexpr, BLOCK: tl.constexpr,
           SLOTS: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    expert, slot = tl.arange(0, BLOCK), tl.arange(0, SLOTS)
    score = tl.load(scores + row * experts + expert, mask=expert < experts, other=float("-inf")).to(tl.float32)
    share = tl.exp(score - tl.max(score, 0))
    total = tl.sum(share, 0)
    share = tl.where(expert < experts, share / total, -2.0)
    chosen, best = tl.zeros([SLOTS], tl.int32), tl.zeros([SLOTS], tl.float32)
    for number in range(TAKEN):
        most = tl.max(share, 0)
        # Scores that are no numbers have no equal: an expert that exists is named all the same.
        first = tl.minimum(tl.min(tl.where(share == most, expert, BLOCK), 0), experts - 1)
        chosen, best = tl.where(slot == number, first, chosen), tl.where(slot == number, most, best)
        share = tl.where(expert == first, -1.0, share)
    if NORMALISED:
        best = best / tl.sum(best, 0)
    best = tl.where(total == total, best, float("nan"))
    tl.store(ids + row * TAKEN + slot, chosen, mask=slot < TAKEN)
    tl.store(weights + row * TAKEN + slot, best, mask=slot < TAKEN)


@triton.jit(do_not_specialize=["pairs", "groups_count"])
def _group_pairs(ids, order, groups, pairs, experts, groups_count, COMPACT: tl.constexpr, PAIRS: tl.constexpr,
                 FEW: tl.constexpr, BLOCK: tl.constexpr, FAR: tl.constexpr):  # fmt: skip
    expert = tl.program_id(0)
    begin, count = 0, 0
    for first in range(0, pairs, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        found = tl.load(ids + pair, mask=pair < pairs, other=FAR)
        begin += tl.sum((found < expert).to(tl.int32), 0)
        count += tl.sum((found == expert).to(tl.int32), 0)
    place = expert
    if COMPACT:
        # Experts with pairs come first, those without behind them.
        all_experts = tl.arange(0, BLOCK)
        taken = tl.zeros([BLOCK], tl.int32)
        for first in range(0, pairs, FEW):
            pair = first + tl.arange(0, FEW)
            found = tl.load(ids + pair, mask=pair < pairs, other=FAR)
            taken += tl.sum((found[:, None] == all_experts[None, :]).to(tl.int32), 0)
        some = (taken > 0).to(tl.int32)
        below = tl.sum(tl.where(all_experts < expert, some, 0), 0)
        place = tl.where(count > 0, below, tl.sum(some, 0) + expert - below)
    if place < groups_count:
        tl.store(groups + 3 * place, expert)
        tl.store(groups + 3 * place + 1, begin)
        tl.store(groups + 3 * place + 2, begin + count)
    for first in range(0, pairs, PAIRS):
        pair = first + tl.arange(0, PAIRS)
        found = tl.load(ids + pair, mask=pair < pairs, other=FAR)
        mine = (found == expert).to(tl.int32)
        tl.store(order + begin + tl.cumsum(mine, 0) - 1, pair, mask=mine > 0)
        begin += tl.sum(mine, 0)


@triton.jit
def _grouped_product(
    x,
    weight,
    scale,
    order,
    groups,
    out,
    outputs,
    depth,
    SPREAD: tl.constexpr,
    SCALED: tl.constexpr,
    GATED: tl.constexpr,
    ROWS: tl.constexpr,
    OUTPUTS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    output = tl.program_id(0) * OUTPUTS + tl.arange(0, OUTPUTS)
    group = groups + 3 * tl.program_id(1)
    expert, begin, end = tl.load(group).to(tl.int64), tl.load(group + 1), tl.load(group + 2)
    real = output < outputs
    kind = out.dtype.element_ty
    line = expert * outputs * 2 + output if GATED else expert * outputs + output
    for first in range(begin, end, ROWS):
        place = first + tl.arange(0, ROWS)
        pair = tl.load(order + place, mask=place < end, other=0).to(tl.int64)
        row = pair // SPREAD
        total = tl.zeros([ROWS, OUTPUTS], tl.float32)
        up_total = tl.zeros([ROWS, OUTPUTS], tl.float32)
        for start in range(0, depth, DEPTH):
            k = start + tl.arange(0, DEPTH)
            known = (k < depth)[None, :]
            left = tl.load(x + row[:, None] * depth + k[None, :], mask=(place < end)[:, None] & known, other=0.0)
            places = line[:, None] * depth + k[None, :]
            right = tl.load(weight + places, mask=real[:, None] & known, other=0.0).to(kind)
            total += tl.dot(left, tl.trans(right), input_precision="ieee")
            if GATED:
                places += outputs * depth
                right = tl.load(weight + places, mask=real[:, None] & known, other=0.0).to(kind)
                up_total += tl.dot(left, tl.trans(right), input_precision="ieee")
        if SCALED:
            total = total * tl.load(scale + line, mask=real, other=0.0)[None, :]
        value = total.to(kind).to(tl.float32)
        if GATED:
            if SCALED:
                up_total = up_total * tl.load(scale + line + outputs, mask=real, other=0.0)[None, :]
            value = (value / (1.0 + tl.exp(-value))).to(kind).to(tl.float32) * up_total.to(kind).to(tl.float32)
        where = pair[:, None] * outputs + output[None, :]
        tl.store(out + where, value.to(kind), mask=(place < end)[:, None] & real[None, :])


@triton.jit
def _mix_experts(parts, weights, out, width, TAKEN: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros([BLOCK], tl.float32)
    for number in range(TAKEN):
        pair = row * TAKEN + number
        part = tl.load(parts + pair * width + column, mask=inside, other=0.0).to(tl.float32)
        total += part * tl.load(weights + pair)
    tl.store(out + row * width + column, total.to(out.dtype.element_ty), mask=inside)


def route(scores: torch.Tensor, taken: int, normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """See the twin."""
    rows, experts = scores.shape
    ids = torch.empty(rows, taken, dtype=torch.int32, device=scores.device)
    weights = torch.empty(rows, taken, dtype=torch.float32, device=scores.device)
    _route[(rows,)](
        scores, ids, weights, experts, NORMALISED=normalised, TAKEN=taken,
        BLOCK=triton.next_power_of_2(experts), SLOTS=triton.next_power_of_2(taken), num_warps=1,
    )  # fmt: skip
    return ids, weights


def group_pairs(ids: torch.Tensor, experts: int) -> Grouping:
    """See the twin."""
    pairs = ids.numel()
    count = min(pairs, experts)
    order = torch.empty(pairs, dtype=torch.int32, device=ids.device)
    groups = torch.empty(count, 3, dtype=torch.int32, device=ids.device)
    _group_pairs[(experts,)](
        ids, order, groups, pairs, experts, count, COMPACT=count < experts, PAIRS=PAIRS, FEW=FEW_PAIRS,
        BLOCK=triton.next_power_of_2(experts), FAR=FAR, num_warps=WARPS,
    )  # fmt: skip
    return Grouping(order, groups, experts)


def grouped_product(
    x: torch.Tensor, matrix: Matrix, grouping: Grouping, spread: int, gated: bool = False
) -> torch.Tensor:
    """See the twin."""
    stored: Any = matrix
    weight, scale = stored.weight, getattr(stored, "scale", None)
    x = x.contiguous()
    pairs, depth = len(grouping.order), x.shape[1]
    outputs = len(weight) // grouping.experts // (2 if gated else 1)
    out = torch.empty(pairs, outputs, dtype=x.dtype, device=x.device)
    rows = MANY_ROWS if pairs >= AVERAGE * grouping.experts else FEW_ROWS
    across = GATED_OUTPUTS if gated else OUTPUTS
    # Tiles of one expert follow each other: its rows stay in the L2 cache.
    _grouped_product[(triton.cdiv(outputs, across), len(grouping.groups))](
        x, weight, x if scale is None else scale, grouping.order, grouping.groups, out, outputs, depth,
        SPREAD=spread, SCALED=scale is not None, GATED=gated,
        ROWS=rows, OUTPUTS=across, DEPTH=DEPTH, num_warps=WARPS, num_stages=STAGES,
    )  # fmt: skip
    return out


def mix_experts(parts: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    rows, taken = weights.shape
    width = parts.shape[1]
    out = torch.empty(rows, width, dtype=parts.dtype, device=parts.device)
    _mix_experts[(rows, triton.cdiv(width, MIX_BLOCK))](parts, weights, out, width, TAKEN=taken, BLOCK=MIX_BLOCK)
    return out
