"""The sampler in one launch: penalty, bans, temperature, top-k, top-p and the seeded draw of every row.

One program per row, which holds a short row (the codebook) in registers, and no sorting: the thresholds of
top-k and top-p are found bit by bit in the ordered bit patterns of the scores. Nothing comes to the host.
Twin: ``kernels.choice.choose``, from which it differs only where scores are equal at a threshold: here
equal scores stay or go together.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.choice import Choices

MAX_BLOCK = 8192  # scores that one program holds at once; longer rows are read again for every pass
WARPS = 8


@triton.jit
def _processed(
    scores, seen, earlier, bans, last, penalty, temperature, column, ids, COUNT: tl.constexpr, BANS: tl.constexpr
):
    """Scores of some columns after penalty, bans and temperature; minus infinity beyond the row's end."""
    inside = column < ids
    value = tl.load(scores + column, mask=inside, other=0.0).to(tl.float32)
    hit = tl.load(seen + column, mask=inside, other=0) != 0
    for i in tl.static_range(COUNT):
        hit = hit | (column == tl.load(earlier + i))
    value = tl.where(hit, tl.where(value < 0, value * penalty, value / penalty), value)
    for i in tl.static_range(BANS):
        before = tl.load(bans + 2 * i)
        active = (before >= 0) & (before == last)
        value = tl.where(active & (column == tl.load(bans + 2 * i + 1)), -float("inf"), value)
    return tl.where(inside, value / temperature, -float("inf"))


@triton.jit
def _key(value):
    """Bit patterns of numbers as integers in the numbers' order."""
    bits = value.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def _uniform(seed, step, number):
    """The random number [1] of a draw: word ``number`` of Philox 4x32-10, as ``kernels.sampler`` counts them."""
    zero = tl.full([1], 0, tl.uint32)
    w0, w1, w2, w3 = tl.philox(
        seed.to(tl.uint64),
        zero + (number // 4).to(tl.uint32),
        zero + (step & 0xFFFFFFFF).to(tl.uint32),
        zero + (step >> 32).to(tl.uint32),
        zero,
    )
    word = number % 4
    bits = tl.where(word == 0, w0, tl.where(word == 1, w1, tl.where(word == 2, w2, w3)))
    return bits.to(tl.float64) / 4294967296.0


@triton.jit(do_not_specialize=["number"])
def _choose_short(
    scores,
    slots,
    seen,
    greedy,
    penalty,
    temperature,
    top_k,
    top_p,
    seeds,
    steps,
    bans,
    last,
    earlier,
    out,
    ids,
    earlier_stride,
    number,
    COUNT: tl.constexpr,
    BANS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    is_greedy = tl.load(greedy + slot) != 0
    heat = tl.where(is_greedy, 1.0, tl.load(temperature + slot))
    lane = tl.arange(0, BLOCK)
    value = _processed(
        scores + row * ids, seen + slot * ids, earlier + row * earlier_stride, bans + slot * BANS * 2,
        tl.load(last + slot), tl.load(penalty + slot), heat, lane, ids, COUNT, BANS,
    )  # fmt: skip
    peak = tl.max(value, 0)
    if is_greedy:
        tl.store(out + row, tl.min(tl.where(value == peak, lane, 2147483647), 0).to(tl.int64))
    else:
        key = _key(value)
        inside = lane < ids
        lowest = tl.full([1], -2147483648, tl.int64)  # thresholds are built bit by bit from here
        top = tl.max(key, 0).to(tl.int64)
        least = lowest
        wanted = tl.load(top_k + slot)
        if (wanted > 0) & (wanted < ids):
            for i in range(32):
                higher = least + (lowest * 0 + 1 << (31 - i))
                count = tl.sum(((key >= higher.to(tl.int32)) & inside).to(tl.int32), 0)
                least = tl.where(count >= wanted, higher, least)
        weight = tl.where((key >= least.to(tl.int32)) & inside, tl.exp(value - peak), 0.0)
        share = tl.load(top_p + slot)
        if share < 1.0:
            # The highest threshold below which no more than 1 - top_p of the mass lies.
            spare = (1.0 - share) * tl.sum(weight, 0)
            threshold = lowest
            for i in range(32):
                higher = threshold + (lowest * 0 + 1 << (31 - i))
                below = tl.sum(tl.where(key < higher.to(tl.int32), weight, 0.0), 0)
                threshold = tl.where(below <= spare, higher, threshold)
            # At least one id stays.
            weight = tl.where(key >= tl.minimum(threshold, top).to(tl.int32), weight, 0.0)
        exact = weight.to(tl.float64)
        share_below = tl.cumsum(exact, 0) / tl.sum(exact, 0)
        uniform = _uniform(tl.load(seeds + slot), tl.load(steps + slot), number)
        chosen = tl.sum(((share_below <= uniform) & inside).to(tl.int32), 0)
        tl.store(out + row, tl.minimum(chosen, ids - 1).to(tl.int64))


@triton.jit(do_not_specialize=["number"])
def _choose_long(
    scores,
    slots,
    seen,
    greedy,
    penalty,
    temperature,
    top_k,
    top_p,
    seeds,
    steps,
    bans,
    last,
    earlier,
    out,
    ids,
    earlier_stride,
    number,
    COUNT: tl.constexpr,
    BANS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row).to(tl.int64)
    scores += row * ids
    seen += slot * ids
    earlier += row * earlier_stride
    bans += slot * BANS * 2
    before = tl.load(last + slot)
    factor = tl.load(penalty + slot)
    is_greedy = tl.load(greedy + slot) != 0
    heat = tl.where(is_greedy, 1.0, tl.load(temperature + slot))
    lane = tl.arange(0, BLOCK)

    peak = -float("inf")
    best = tl.program_id(0) * 0
    for start in range(0, ids, BLOCK):
        value = _processed(scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS)
        highest = tl.max(value, 0)
        place = tl.min(tl.where(value == highest, start + lane, 2147483647), 0)
        best = tl.where(highest > peak, place, best)
        peak = tl.maximum(highest, peak)
    if is_greedy:
        tl.store(out + row, best.to(tl.int64))
    else:
        lowest = tl.full([1], -2147483648, tl.int64)  # thresholds are built bit by bit from here
        top = _key(tl.full([1], 0.0, tl.float32) + peak).to(tl.int64)
        floor = lowest
        wanted = tl.load(top_k + slot)
        if (wanted > 0) & (wanted < ids):
            for i in range(32):
                higher = floor + (lowest * 0 + 1 << (31 - i))
                count = 0
                for start in range(0, ids, BLOCK):
                    value = _processed(
                        scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS
                    )
                    count += tl.sum(((_key(value) >= higher.to(tl.int32)) & (start + lane < ids)).to(tl.int32), 0)
                floor = tl.where(count >= wanted, higher, floor)
        mass = 0.0
        for start in range(0, ids, BLOCK):
            value = _processed(scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS)
            mass += tl.sum(tl.where(_key(value) >= floor.to(tl.int32), tl.exp(value - peak), 0.0), 0)
        share = tl.load(top_p + slot)
        if share < 1.0:
            # The highest threshold below which no more than 1 - top_p of the mass lies.
            spare = (1.0 - share) * mass
            least = floor
            threshold = lowest
            for i in range(32):
                higher = threshold + (lowest * 0 + 1 << (31 - i))
                below = 0.0
                for start in range(0, ids, BLOCK):
                    value = _processed(
                        scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS
                    )
                    key = _key(value)
                    below += tl.sum(
                        tl.where((key >= least.to(tl.int32)) & (key < higher.to(tl.int32)), tl.exp(value - peak), 0.0),
                        0,
                    )
                threshold = tl.where(below <= spare, higher, threshold)
            floor = tl.minimum(tl.maximum(threshold, least), top)  # at least one id stays
        total = tl.zeros([1], tl.float64)
        for start in range(0, ids, BLOCK):
            value = _processed(scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS)
            total += tl.sum(tl.where(_key(value) >= floor.to(tl.int32), tl.exp(value - peak), 0.0).to(tl.float64), 0)
        uniform = _uniform(tl.load(seeds + slot), tl.load(steps + slot), number)
        passed = tl.zeros([1], tl.float64)
        chosen = tl.zeros([1], tl.int32)
        for start in range(0, ids, BLOCK):
            value = _processed(scores, seen, earlier, bans, before, factor, heat, start + lane, ids, COUNT, BANS)
            weight = tl.where(_key(value) >= floor.to(tl.int32), tl.exp(value - peak), 0.0).to(tl.float64)
            cumulative = tl.cumsum(weight, 0) + passed
            chosen += tl.sum(((cumulative / total <= uniform) & (start + lane < ids)).to(tl.int32), 0)
            passed += tl.sum(weight, 0)
        tl.store(out + row + tl.arange(0, 1), tl.minimum(chosen, ids - 1).to(tl.int64))


def choose(
    scores: torch.Tensor, slots: torch.Tensor, choices: Choices, earlier: torch.Tensor | None, number: int
) -> torch.Tensor:
    """See the twin. ``draws`` is the twin's own: here all random numbers are seeded."""
    assert choices.draws is None, "recorded random numbers are for the twin"
    rows, ids = scores.shape
    count = 0 if earlier is None else earlier.shape[1]
    out = torch.empty(rows, dtype=torch.int64, device=scores.device)
    kernel = _choose_short if ids <= MAX_BLOCK else _choose_long
    kernel[(rows,)](
        scores, slots, choices.seen, choices.greedy, choices.penalty, choices.temperature, choices.top_k,
        choices.top_p, choices.seeds, choices.steps, choices.bans, choices.last,
        out if earlier is None else earlier, out, ids, 0 if earlier is None else earlier.stride(0), number,
        COUNT=count, BANS=choices.bans.shape[1], BLOCK=min(MAX_BLOCK, triton.next_power_of_2(ids)),
        num_warps=WARPS,
    )  # fmt: skip
    return out
