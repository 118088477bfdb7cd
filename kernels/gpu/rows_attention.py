"""Paged attention of single rows (generation): one query position per sequence, any number of cached ones.

Every (row, KV head) is cut along its cached positions into splits, so that a few rows still fill a
device; a second kernel joins the splits. The grid depends on nothing but the number of rows, so a
captured graph serves sequences of any length. Twin: ``kernels.paged_rows.attend_rows``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.launch import Pool, check_power_of_two, splits_for

TILE = 64  # cached positions of one iteration
MIN_DOT = 16  # rows that a tensor core product takes at least


@triton.jit(do_not_specialize=["layer", "table_width"])
def _attend_split(
    q,
    pool,
    tables,
    slots,
    positions,
    out,
    partial,
    stats,
    layer,
    table_width,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    GROUP_PAD: tl.constexpr,
    DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    TILE: tl.constexpr,
    SPLITS: tl.constexpr,
):
    row, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    slot = tl.load(slots + row).to(tl.int64)
    length = tl.load(positions + row).to(tl.int32) + 1
    share = tl.cdiv(tl.cdiv(length, TILE), SPLITS) * TILE
    begin = split * share
    end = tl.minimum(begin + share, length)
    d = tl.arange(0, DIM)
    g = tl.arange(0, GROUP_PAD)
    head = kv_head * GROUP + g
    lines = (row * HEADS + head)[:, None] * DIM + d[None, :]
    query = tl.load(q + lines, mask=(g < GROUP)[:, None], other=0.0)
    largest = tl.full([GROUP_PAD], -float("inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    mixed = tl.zeros([GROUP_PAD, DIM], tl.float32)
    entries = tables + slot * 2 * table_width
    for start in range(begin, end, TILE):
        t = start + tl.arange(0, TILE)
        inside = t < end
        block = t // TOKENS
        keys_at = tl.load(entries + block, mask=inside, other=0).to(tl.int64) + 2 * layer
        values_at = tl.load(entries + table_width + block, mask=inside, other=0).to(tl.int64) + 2 * layer
        place = (kv_head * TOKENS + t % TOKENS) * DIM
        unit = KV_HEADS * TOKENS * DIM
        k = tl.load(pool + (keys_at * unit + place)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(pool + (values_at * unit + place)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        scores = tl.where(inside[None, :], scores, -float("inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        fade = tl.exp(largest - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = higher
    if SPLITS == 1:
        tl.store(out + lines, (mixed / total[:, None]).to(out.dtype.element_ty), mask=(g < GROUP)[:, None])
    else:
        part = (row * HEADS + head) * SPLITS + split
        tl.store(partial + part[:, None] * DIM + d[None, :], mixed, mask=(g < GROUP)[:, None])
        tl.store(stats + part * 2, largest, mask=g < GROUP)
        tl.store(stats + part * 2 + 1, total, mask=g < GROUP)


@triton.jit
def _join_splits(partial, stats, out, DIM: tl.constexpr, SPLITS: tl.constexpr):
    line = tl.program_id(0)
    s = tl.arange(0, SPLITS)
    d = tl.arange(0, DIM)
    largest = tl.load(stats + (line * SPLITS + s) * 2)
    # An empty split has the maximum minus infinity and so the weight zero.
    weight = tl.exp(largest - tl.max(largest, 0))
    total = tl.sum(weight * tl.load(stats + (line * SPLITS + s) * 2 + 1), 0)
    parts = tl.load(partial + (line * SPLITS + s)[:, None] * DIM + d[None, :])
    tl.store(out + line * DIM + d, (tl.sum(parts * weight[:, None], 0) / total).to(out.dtype.element_ty))


def attend_rows(
    q: torch.Tensor, pool: Pool, slots: torch.Tensor, positions: torch.Tensor, layer: int, splits: int | None = None
) -> torch.Tensor:
    """See the twin ``kernels.paged_rows.attend_rows``.

    Args:
        splits: a power of two; None: as many as fill the device.
    """
    rows, heads, dim = q.shape
    kv_heads, tokens = pool.memory.shape[3:5]
    check_power_of_two("head size", dim)
    splits = splits_for(rows * kv_heads, q.device) if splits is None else splits
    out = torch.empty_like(q)
    # Empty where they are not needed: a pointer must still be given.
    cut = 0 if splits == 1 else rows * heads * splits
    partial = torch.empty(cut, dim, dtype=torch.float32, device=q.device)
    stats = torch.empty(cut, 2, dtype=torch.float32, device=q.device)
    group = heads // kv_heads
    _attend_split[(rows, kv_heads, splits)](
        q, pool.memory, pool.tables, slots, positions, out, partial, stats,
        layer, pool.tables.shape[2], dim**-0.5,
        HEADS=heads, KV_HEADS=kv_heads, GROUP=group, GROUP_PAD=max(MIN_DOT, triton.next_power_of_2(group)),
        DIM=dim, TOKENS=tokens, TILE=TILE, SPLITS=splits,
    )  # fmt: skip
    if splits > 1:
        _join_splits[(rows * heads,)](partial, stats, out, DIM=dim, SPLITS=splits)
    return out.view(rows, heads * dim)
