"""Attention of the flow over cached blocks and the call's own, gathered through tables as it goes.

A program takes frames of one block, so what they see is the same for all of them: whole blocks, of which
those that no frame may see are not even read. Twin: ``kernels.flow.attend_blocks``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.flow import FlowPages
from kernels.gpu.launch import processors

MIN_DOT = 16  # rows that a tensor core product takes at least
MIN_SLOTS = 2  # that are looked at together
TILE = 64  # most frames of keys of one iteration
ROWS = (64, 32, 16)  # of queries of a program; fewer where there are few programs
LOWEST = -3.0e38  # below every score: a row that has seen nothing yet keeps a finite maximum
STAGES = 2


@triton.jit
def _look(query, pool, plane, shown, largest, total, mixed, STEP: tl.constexpr, DIM: tl.constexpr):
    """One tile of keys: ``plane`` its first element, ``shown`` [TILE] which of its frames are seen."""
    k = tl.arange(0, shown.shape[0])[:, None]
    d = tl.arange(0, query.shape[1])[None, :]
    known = shown[:, None] & (d < DIM)
    keys = tl.load(pool + plane + k * DIM + d, mask=known, other=0.0)
    values = tl.load(pool + plane + STEP + k * DIM + d, mask=known, other=0.0)
    scores = tl.dot(query, tl.trans(keys), input_precision="ieee")
    scores = tl.where(shown[None, :], scores, -float("inf"))
    higher = tl.maximum(largest, tl.max(scores, 1))
    fade = tl.exp(largest - higher)
    weights = tl.exp(scores - higher[:, None])
    total = total * fade + tl.sum(weights, 1)
    mixed = mixed * fade[:, None] + tl.dot(weights.to(values.dtype), values, input_precision="ieee")
    return higher, total, mixed


@triton.jit(do_not_specialize=["streams", "length", "slots", "window"])
def _attend_blocks(
    q,
    cache,
    own,
    tables,
    numbers,
    first,
    frames,
    out,
    streams,
    length,
    slots,
    window,
    LOWEST: tl.constexpr,
    HEADS: tl.constexpr,
    DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    FRAMES: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SLOTS_PAD: tl.constexpr,
):
    row, head = tl.program_id(2).to(tl.int64), tl.program_id(1)
    CUTS: tl.constexpr = (FRAMES + ROWS - 1) // ROWS  # of a block into tiles of queries
    PARTS: tl.constexpr = (FRAMES + TILE - 1) // TILE  # of a block into tiles of keys
    STEP: tl.constexpr = HEADS * FRAMES * DIM  # from keys to values
    block = tl.program_id(0) // CUTS
    guide, stream = row // streams, row % streams
    now = tl.load(first + stream) // FRAMES + block
    valid = tl.load(frames + stream)
    within = (tl.program_id(0) % CUTS) * ROWS + tl.arange(0, ROWS)
    d = tl.arange(0, DIM_PAD)
    lines = (row * length + block * FRAMES + within)[:, None] * HEADS * DIM + head * DIM + d[None, :]
    inside = (within < FRAMES)[:, None] & (d < DIM)[None, :]
    query = tl.load(q + lines, mask=inside, other=0.0)
    largest = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, DIM_PAD], tl.float32)
    k = tl.arange(0, TILE)
    entries = stream * slots
    s = tl.arange(0, SLOTS_PAD)
    held = tl.load(numbers + entries + s, mask=s < slots, other=-1)
    seen = (held >= 0) & (held <= now) & (held >= now - window)
    end = tl.max(tl.where(seen, s + 1, 0), 0)  # tables fill from the left: mostly nothing lies behind
    for item in range(0, end * PARTS):
        slot, begin = item // PARTS, (item % PARTS) * TILE
        number = tl.load(numbers + entries + slot)
        visible = (number >= 0) & (number <= now) & (number >= now - window)
        page = tl.load(tables + entries + slot).to(tl.int64)
        plane = ((page * 2 + guide) * 2 * HEADS + head) * FRAMES * DIM + begin * DIM
        shown = visible & (begin + k < FRAMES)
        largest, total, mixed = _look(query, cache, plane, shown, largest, total, mixed, STEP, DIM)
    for item in range(tl.maximum(block - window, 0) * PARTS, (block + 1) * PARTS):
        mine, begin = item // PARTS, (item % PARTS) * TILE
        page = stream * (length // FRAMES) + mine
        plane = ((page * 2 + guide) * 2 * HEADS + head) * FRAMES * DIM + begin * DIM
        shown = (begin + k < FRAMES) & (mine * FRAMES + begin + k < valid)
        largest, total, mixed = _look(query, own, plane, shown, largest, total, mixed, STEP, DIM)
    result = mixed / tl.where(total == 0.0, 1.0, total)[:, None]  # a row that sees nothing is zero
    tl.store(out + lines, result.to(out.dtype.element_ty), mask=inside)


def query_rows(programs: int, frames: int, device: torch.device) -> int:
    """Rows of a tile of queries: as many as leave every processor a program, with ``programs`` blocks of ``frames``."""
    most = max(MIN_DOT, triton.next_power_of_2(frames))
    fitting = [rows for rows in ROWS if rows <= most]
    wide = [rows for rows in fitting if programs * triton.cdiv(frames, rows) >= processors(device)]
    return wide[0] if wide else fitting[-1]


def attend_blocks(
    q: torch.Tensor, cache: torch.Tensor, own: torch.Tensor, pages: FlowPages, rows: int | None = None
) -> torch.Tensor:
    """See the twin.

    Args:
        rows: of a tile of queries, see ``query_rows``, which decides when None.
    """
    lines, length, heads, dim = q.shape
    frames, slots = own.shape[4], pages.tables.shape[1]
    blocks = length // frames
    rows = query_rows(lines * heads * blocks, frames, q.device) if rows is None else rows
    out = torch.empty_like(q)
    _attend_blocks[(blocks * triton.cdiv(frames, rows), heads, lines)](
        q, cache, own, pages.tables, pages.numbers, pages.first, pages.frames, out,
        len(pages.first), length, slots, pages.window,
        LOWEST=LOWEST, HEADS=heads, DIM=dim, DIM_PAD=max(MIN_DOT, triton.next_power_of_2(dim)), FRAMES=frames,
        ROWS=rows, TILE=min(TILE, max(MIN_DOT, triton.next_power_of_2(frames))),
        SLOTS_PAD=max(MIN_SLOTS, triton.next_power_of_2(slots)), num_stages=STAGES,
    )  # fmt: skip
    return out.view(lines * length, heads * dim)
