"""Paged attention over block tables: the plain torch twin, which is what ``cpu`` runs.

The pool is [blocks, layers, 2, KV heads, tokens of a block, head size]. Viewed as planes of
[tokens of a block, head size], the plane of (block offset, layer, KV head) is
``(offset + 2 * layer) * kv_heads + head``, where the offset is the contract's (unit: one layer's K
or V block). So one gather per layer brings K and V of every sequence in attention order.

A row's result does not depend, to the last bit, on what else is in the step: how a prompt is cut into
chunks, how many sequences there are, how long the others are. Torch's attention takes ``COLUMNS`` columns
and ``TILE`` rows at a time, and rounds otherwise where less is left, so prompts are laid out in whole ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F

from runtime.engines.base import CONTEXT, EngineShape

COLUMNS, TILE = 512, 32
FEW_QUERIES = 4  # products of fewer rows are the same for every number of columns up to FEW_COLUMNS
FEW_COLUMNS = 128  # longer sums are cut by the CPU library at places that depend on their length


@dataclass(frozen=True, slots=True)
class ContextSpan:
    """Rows of one context sequence.

    ``rows``: where it is in the packed rows. ``places`` [tiles * TILE] int64: rows of the sequence, the last one
    repeated. ``planes`` [2 * kv_heads * blocks]. ``mask`` [tiles, 1, TILE, columns] additive.
    """

    rows: slice
    places: torch.Tensor
    planes: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True)
class PagePlan:
    """Indices of one step, shared by all its layers.

    ``positions`` [rows] int64; ``write_rows`` [rows * 2 * kv_heads] rows of the pool seen as
    [planes * tokens of a block, head size]; ``planes`` [generations * 2 * kv_heads * blocks];
    ``mask`` [generations, 1, 1, columns] additive.
    """

    positions: torch.Tensor
    write_rows: torch.Tensor
    contexts: tuple[ContextSpan, ...]
    generation_rows: slice
    planes: torch.Tensor
    mask: torch.Tensor


def plan_pages(bindings: dict[str, np.ndarray], shape: EngineShape, queries: int) -> PagePlan:
    """Reads the contract's bindings and prepares a step's indices.

    Args:
        queries: query heads of one KV head.
    """
    ends = bindings["sequence_length"].astype(np.int64)
    kinds = bindings["host_request_types"]
    lengths = np.where(kinds == CONTEXT, bindings["host_context_lengths"], 1).astype(np.int64)
    tables = bindings["kv_cache_block_offsets"][0].astype(np.int64)  # [sequences, 2, blocks]
    sequence = np.repeat(np.arange(len(ends)), lengths)
    first_row = np.cumsum(lengths) - lengths
    positions = (ends - lengths)[sequence] + np.arange(len(sequence)) - first_row[sequence]
    heads = np.arange(shape.num_kv_heads)
    block, within = np.divmod(positions, shape.tokens_per_block)
    write = tables[sequence, :, block][:, :, None] * shape.num_kv_heads + heads  # [rows, 2, kv heads]
    write = write * shape.tokens_per_block + within[:, None, None]
    num_contexts = int(np.count_nonzero(kinds == CONTEXT))
    contexts = (_context_spans(i, first_row, lengths, ends, tables, shape) for i in range(num_contexts))
    start = int(first_row[num_contexts]) if num_contexts < len(ends) else len(sequence)
    planes, mask = _generation_pages(ends[num_contexts:], tables[num_contexts:], shape, queries)
    return PagePlan(
        positions=torch.from_numpy(positions),
        write_rows=torch.from_numpy(write.ravel()),
        contexts=tuple(chain.from_iterable(contexts)),
        generation_rows=slice(start, len(sequence)),
        planes=planes,
        mask=mask,
    )


def plan_last_rows(bindings: dict[str, np.ndarray], shape: EngineShape, queries: int) -> PagePlan:
    """The plan of the last row of every sequence, whose K and V are written already: all generation rows."""
    ends = bindings["sequence_length"].astype(np.int64)
    tables = bindings["kv_cache_block_offsets"][0].astype(np.int64)
    planes, mask = _generation_pages(ends, tables, shape, queries)
    return PagePlan(
        positions=torch.from_numpy(ends - 1),
        write_rows=torch.empty(0, dtype=torch.int64),
        contexts=(),
        generation_rows=slice(0, len(ends)),
        planes=planes,
        mask=mask,
    )


def _planes(tables: np.ndarray, blocks: int, shape: EngineShape) -> torch.Tensor:
    """[sequences, 2, blocks] offsets to plane numbers in the order [sequences, 2, kv heads, blocks]."""
    heads = np.arange(shape.num_kv_heads)[:, None]
    return torch.from_numpy((tables[:, :, None, :blocks] * shape.num_kv_heads + heads).ravel())


def _own_planes(tables: np.ndarray, ends: np.ndarray, blocks: int, shape: EngineShape) -> torch.Tensor:
    """Planes of so many blocks for each sequence.

    Behind its own blocks a sequence repeats its first: another's, though masked, might hold a NaN.
    """
    numbers = np.arange(blocks)
    numbers = np.where(numbers * shape.tokens_per_block < ends[:, None], numbers, 0)  # [sequences, blocks]
    return _planes(np.take_along_axis(tables, numbers[:, None], axis=2), blocks, shape)


def _columns(end: int, shape: EngineShape, whole: bool) -> int:
    """Columns for so many positions: whole blocks of the cache and whole ones of ``TILE`` or ``COLUMNS``."""
    unit = max(TILE, shape.tokens_per_block)
    few = -(-end // unit) * unit
    if not whole and few <= FEW_COLUMNS:
        return few
    unit = max(COLUMNS, shape.tokens_per_block)
    return -(-end // unit) * unit


def _generation_pages(
    ends: np.ndarray, tables: np.ndarray, shape: EngineShape, queries: int
) -> tuple[torch.Tensor, torch.Tensor]:
    if not len(ends):
        return torch.empty(0, dtype=torch.int64), torch.empty(0)
    columns = _columns(int(ends.max()), shape, whole=queries >= FEW_QUERIES)
    mask = np.where(np.arange(columns) < ends[:, None], 0.0, -np.inf).astype(np.float32)[:, None, None]
    return _own_planes(tables, ends, columns // shape.tokens_per_block, shape), torch.from_numpy(mask)


def _context_spans(
    i: int, first_row: np.ndarray, lengths: np.ndarray, ends: np.ndarray, tables: np.ndarray, shape: EngineShape
) -> Iterator[ContextSpan]:
    """A context in pieces that end with their columns, so that early rows are not multiplied with all of them."""
    last, piece = int(ends[i]), max(COLUMNS, shape.tokens_per_block)
    begin = first = int(ends[i] - lengths[i])
    while begin < last:
        end = min(last, (begin // piece + 1) * piece)
        places = np.minimum(np.arange(-(-(end - begin) // TILE) * TILE), end - begin - 1)
        columns = _columns(end, shape, whole=True)
        visible = np.arange(columns) <= (begin + places)[:, None]
        mask = np.where(visible, 0.0, -np.inf).astype(np.float32).reshape(-1, 1, TILE, columns)
        planes = _own_planes(tables[i : i + 1], np.array([end]), columns // shape.tokens_per_block, shape)
        row = int(first_row[i]) + begin - first
        yield ContextSpan(slice(row, row + end - begin), torch.from_numpy(places), planes, torch.from_numpy(mask))
        begin = end


def write_kv(pool: torch.Tensor, plan: PagePlan, layer: int, kv: torch.Tensor) -> None:
    """Stores K and V of the step's rows.

    Args:
        pool: the whole pool.
        kv: [rows, 2, kv_heads, head size].
    """
    _, _, _, kv_heads, tokens, dim = pool.shape
    rows = plan.write_rows + layer * 2 * kv_heads * tokens
    pool.view(-1, dim).index_copy_(0, rows, kv.reshape(-1, dim))


def attend(q: torch.Tensor, pool: torch.Tensor, plan: PagePlan, layer: int) -> torch.Tensor:
    """Grouped-query attention of the step's rows over their sequences' pages.

    Args:
        q: [rows, heads, head size], rotated. The scale is head_size ** -0.5.

    Returns:
        [rows, heads * head size].
    """
    _, _, _, kv_heads, tokens, dim = pool.shape
    planes = pool.view(-1, tokens * dim)
    first = layer * 2 * kv_heads
    grouped = q.view(len(q), kv_heads, -1, dim)  # [rows, kv heads, queries of a kv head, head size]
    outputs = [_attend_context(grouped[span.rows], planes, span, first, tokens) for span in plan.contexts]
    if plan.mask.numel():
        kv = planes.index_select(0, plan.planes + first)
        kv = kv.view(plan.mask.shape[0], 2, kv_heads, -1, dim)
        # The queries of a KV head stand in the place of query positions: no copy of K or V per head.
        rows = grouped[plan.generation_rows]
        outputs.append(F.scaled_dot_product_attention(rows, kv[:, 0], kv[:, 1], attn_mask=plan.mask.to(rows.dtype)))
    out = outputs[0] if len(outputs) == 1 else torch.cat(outputs)
    return out.reshape(len(q), -1)


def _attend_context(q: torch.Tensor, planes: torch.Tensor, span: ContextSpan, first: int, tokens: int) -> torch.Tensor:
    rows, kv_heads, group, dim = q.shape
    tiles = len(span.mask)
    kv = planes.index_select(0, span.planes + first).view(2, kv_heads, 1, -1, dim)
    k, v = kv.expand(2, kv_heads, tiles * group, kv.shape[3], dim)
    # The tiles of a KV head stand in the place of heads, so they share its K and V without a copy.
    tiled = q[span.places].view(tiles, TILE, kv_heads, group, dim).permute(2, 0, 3, 1, 4).flatten(1, 2)
    mask = span.mask.to(q.dtype).expand(-1, group, -1, -1).flatten(0, 1)[None]
    out = F.scaled_dot_product_attention(tiled, k, v, attn_mask=mask)
    out = out.view(kv_heads, tiles, group, TILE, dim).permute(1, 3, 0, 2, 4)
    return out.reshape(tiles * TILE, kv_heads, group, dim)[:rows]
