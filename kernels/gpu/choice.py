"""The sampler: penalty, bans, temperature, top-k, top-p and the seeded draw of every row, and whether it is finite.

One program per row, which holds a short row (the codebook) in registers, and no sorting: the thresholds of
top-k and top-p are found bit by bit in the ordered bit patterns of the scores. The largest score of a long
row (the text) is found by many programs first. Nothing comes to the host.
Twin: ``kernels.choice.choose``, from which it differs only where scores are equal at a threshold: here
equal scores stay or go together.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from kernels.choice import Choices

MAX_BLOCK = 8192  # scores that one program holds at once; longer rows are read again for every pass
SCAN_BLOCK = 2048  # scores of one program that looks for the largest of a long row: one row fills half a device
WARPS, SCAN_WARPS = 8, 4
NOWHERE = tl.constexpr(2147483647)  # a place behind all others


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
    # Rounded divisions: ``/`` compiles to an approximate one, and the twin's ids would differ now and then.
    value = tl.where(hit, tl.where(value < 0, value * penalty, tl.div_rn(value, penalty)), value)
    for i in tl.static_range(BANS):
        before = tl.load(bans + 2 * i)
        active = (before >= 0) & (before == last)
        value = tl.where(active & (column == tl.load(bans + 2 * i + 1)), -float("inf"), value)
    return tl.where(inside, tl.div_rn(value, temperature), -float("inf"))


@triton.jit
def _largest(scores, column, ids):
    """The largest of the raw scores of some columns; infinity where one is no number, which ``tl.max`` passes over."""
    value = tl.load(scores + column, mask=column < ids, other=-float("inf")).to(tl.float32)
    return tl.where(tl.max((value != value).to(tl.int32), 0) != 0, float("inf"), tl.max(value, 0))


@triton.jit
def _note_fault(faulty, largest):
    """Sets the flag where the largest score of a row is not finite."""
    broken = (largest == float("inf")) | (largest == -float("inf"))
    tl.store(faulty, broken, mask=broken)


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


@triton.jit(do_not_specialize=["number", "out_stride"])
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
    faulty,
    earlier,
    out,
    ids,
    earlier_stride,
    out_stride,
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
    _note_fault(faulty + slot, _largest(scores + row * ids, lane, ids))
    out += row * out_stride
    if is_greedy:
        best = tl.min(tl.where(value == peak, lane, NOWHERE), 0)
        tl.store(out, tl.minimum(best, ids - 1).to(tl.int64))
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
        tl.store(out, tl.minimum(chosen, ids - 1).to(tl.int64))


@triton.jit
def _scan(
    scores,
    slots,
    seen,
    greedy,
    penalty,
    temperature,
    bans,
    last,
    earlier,
    peaks,
    places,
    ids,
    earlier_stride,
    COUNT: tl.constexpr,
    BANS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Of a block of a row: the largest processed score, its lowest id, and the largest raw score."""
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + row).to(tl.int64)
    heat = tl.where(tl.load(greedy + slot) != 0, 1.0, tl.load(temperature + slot))
    column = block * BLOCK + tl.arange(0, BLOCK)
    value = _processed(
        scores + row * ids, seen + slot * ids, earlier + row * earlier_stride, bans + slot * BANS * 2,
        tl.load(last + slot), tl.load(penalty + slot), heat, column, ids, COUNT, BANS,
    )  # fmt: skip
    highest = tl.max(value, 0)
    at = row * tl.num_programs(1) + block
    tl.store(peaks + at * 2, highest)
    tl.store(peaks + at * 2 + 1, _largest(scores + row * ids, column, ids))
    tl.store(places + at, tl.min(tl.where(value == highest, column, NOWHERE), 0))


@triton.jit(do_not_specialize=["number", "out_stride", "blocks"])
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
    faulty,
    earlier,
    out,
    peaks,
    places,
    ids,
    earlier_stride,
    out_stride,
    blocks,
    number,
    COUNT: tl.constexpr,
    BANS: tl.constexpr,
    BLOCK: tl.constexpr,
    BLOCKS_PAD: tl.constexpr,
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

    # What the programs of ``_scan`` found; the lowest of equal ids wins there and here.
    part = tl.arange(0, BLOCKS_PAD)
    known = part < blocks
    at = row * blocks + part
    highest = tl.load(peaks + at * 2, mask=known, other=-float("inf"))
    peak = tl.max(highest, 0)
    best = tl.min(tl.where((highest == peak) & known, tl.load(places + at, mask=known, other=0), NOWHERE), 0)
    _note_fault(faulty + slot, tl.max(tl.load(peaks + at * 2 + 1, mask=known, other=-float("inf")), 0))
    out += row * out_stride
    if is_greedy:
        tl.store(out, tl.minimum(best, ids - 1).to(tl.int64))
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
        tl.store(out + tl.arange(0, 1), tl.minimum(chosen, ids - 1).to(tl.int64))


def choose(
    scores: torch.Tensor,
    slots: torch.Tensor,
    choices: Choices,
    earlier: torch.Tensor | None,
    number: int,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """See the twin. ``draws`` is the twin's own: here all random numbers are seeded."""
    assert choices.draws is None, "recorded random numbers are for the twin"
    rows, ids = scores.shape
    if out is None:
        out = torch.empty(rows, dtype=torch.int64, device=scores.device)
    count = 0 if earlier is None else earlier.shape[1]
    # Pointers must be given even where nothing is read.
    earlier, stride = (out, 0) if earlier is None else (earlier, earlier.stride(0))
    common = scores, slots, choices.seen, choices.greedy, choices.penalty, choices.temperature
    rules = choices.top_k, choices.top_p, choices.seeds, choices.steps, choices.bans, choices.last, choices.faulty
    sizes: dict[str, Any] = dict(COUNT=count, BANS=choices.bans.shape[1])
    if ids <= MAX_BLOCK:
        _choose_short[(rows,)](
            *common, *rules, earlier, out, ids, stride, out.stride(0), number,
            **sizes, BLOCK=triton.next_power_of_2(ids), num_warps=WARPS,
        )  # fmt: skip
        return out
    blocks = triton.cdiv(ids, SCAN_BLOCK)
    peaks = torch.empty(rows, blocks, 2, dtype=torch.float32, device=scores.device)
    places = torch.empty(rows, blocks, dtype=torch.int32, device=scores.device)
    _scan[(rows, blocks)](
        *common, choices.bans, choices.last, earlier, peaks, places, ids, stride,
        **sizes, BLOCK=SCAN_BLOCK, num_warps=SCAN_WARPS,
    )  # fmt: skip
    _choose_long[(rows,)](
        *common, *rules, earlier, out, peaks, places, ids, stride, out.stride(0), blocks, number,
        **sizes, BLOCK=MAX_BLOCK, BLOCKS_PAD=triton.next_power_of_2(blocks), num_warps=WARPS,
    )  # fmt: skip
    return out
