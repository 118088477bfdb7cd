"""What the sampler's kernels share: processed scores, their order as integers, faults, the seeded random number."""

from __future__ import annotations

import triton
import triton.language as tl

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
