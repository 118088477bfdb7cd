"""The sampler of long rows (the text): the largest score by many programs first, then one program per row."""

from __future__ import annotations

import triton
import triton.language as tl

from kernels.gpu.choice_parts import NOWHERE, _key, _largest, _note_fault, _processed, _uniform

MAX_BLOCK = 8192  # scores that one program holds at once; longer rows are read again for every pass
SCAN_BLOCK = 2048  # scores of one program that looks for the largest of a long row: one row fills half a device


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
