"""Paged attention of prompt chunks: many query positions of a sequence, its K and V written before.

A tile is a few consecutive rows of one sequence, or none at all. Grouped-query, causal by absolute position, so a first
chunk and a later one are the same call. Twin: ``kernels.paged_rows.attend_chunks``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.gpu.launch import Pool, check_power_of_two
from kernels.paged_rows import TILE_ROWS

TILE = 64  # cached positions of one iteration


@triton.jit(do_not_specialize=["layer", "table_width"])
def _attend_tile(
    q,
    pool,
    tables,
    slots,
    positions,
    tiles,
    out,
    layer,
    table_width,
    scale,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    DIM: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    tile, head = tl.program_id(0), tl.program_id(1)
    first = tl.load(tiles + tile * 2)
    count = tl.load(tiles + tile * 2 + 1)
    if count == 0:
        return
    slot = tl.load(slots + first).to(tl.int64)
    base = tl.load(positions + first).to(tl.int32)
    d = tl.arange(0, DIM)
    r = tl.arange(0, ROWS)
    lines = ((first + r) * HEADS + head)[:, None] * DIM + d[None, :]
    query = tl.load(q + lines, mask=(r < count)[:, None], other=0.0)
    largest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM], tl.float32)
    entries = tables + slot * 2 * table_width
    end = base + count
    for start in range(0, end, TILE):
        t = start + tl.arange(0, TILE)
        inside = t < end
        block = t // TOKENS
        keys_at = tl.load(entries + block, mask=inside, other=0).to(tl.int64) + 2 * layer
        values_at = tl.load(entries + table_width + block, mask=inside, other=0).to(tl.int64) + 2 * layer
        place = ((head // GROUP) * TOKENS + t % TOKENS) * DIM
        unit = KV_HEADS * TOKENS * DIM
        k = tl.load(pool + (keys_at * unit + place)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        v = tl.load(pool + (values_at * unit + place)[:, None] + d[None, :], mask=inside[:, None], other=0.0)
        scores = tl.dot(query, tl.trans(k), input_precision="ieee") * scale
        # Rows beyond the tile's count see what its last row sees: they never divide by zero.
        seen = tl.minimum(base + r, end - 1)
        scores = tl.where(t[None, :] <= seen[:, None], scores, -float("inf"))
        higher = tl.maximum(largest, tl.max(scores, 1))
        fade = tl.exp(largest - higher)
        weights = tl.exp(scores - higher[:, None])
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        largest = higher
    tl.store(out + lines, (mixed / total[:, None]).to(out.dtype.element_ty), mask=(r < count)[:, None])


def attend_chunks(
    q: torch.Tensor, pool: Pool, slots: torch.Tensor, positions: torch.Tensor, tiles: torch.Tensor, layer: int
) -> torch.Tensor:
    """See the twin ``kernels.paged_rows.attend_chunks``."""
    rows, heads, dim = q.shape
    kv_heads, tokens = pool.memory.shape[3:5]
    check_power_of_two("head size", dim)
    out = torch.empty_like(q)
    _attend_tile[(len(tiles), heads)](
        q, pool.memory, pool.tables, slots, positions, tiles, out,
        layer, pool.tables.shape[2], dim**-0.5,
        HEADS=heads, KV_HEADS=kv_heads, GROUP=heads // kv_heads, DIM=dim, TOKENS=tokens,
        ROWS=TILE_ROWS, TILE=TILE,
    )  # fmt: skip
    return out.view(rows, heads * dim)
