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
from kernels.gpu.choice_long import MAX_BLOCK, SCAN_BLOCK, _choose_long, _scan
from kernels.gpu.choice_parts import NOWHERE, _key, _largest, _note_fault, _processed, _uniform

WARPS, SCAN_WARPS = 8, 4


# Rows of odd lengths begin anywhere: code for aligned ones would gain nothing, and be compiled while streams wait.
@triton.jit(do_not_specialize=["number", "out_stride"], do_not_specialize_on_alignment=["scores"])
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
