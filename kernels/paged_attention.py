"""Paged attention over block tables: the plain torch twin, which is what ``cpu`` runs.

The pool is [blocks, layers, 2, KV heads, tokens of a block, head size]. Viewed as planes of
[tokens of a block, head size], the plane of (block offset, layer, KV head) is
``(offset + 2 * layer) * kv_heads + head``, where the offset is the contract's (unit: one layer's K
or V block). So one gather per layer brings K and V of every sequence in attention order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from runtime.engines.base import CONTEXT, EngineShape


@dataclass(frozen=True, slots=True)
class ContextSpan:
    """One context sequence: its packed rows, its K/V planes [2 * kv_heads * blocks] and its mask [rows, columns].

    ``mask`` is None for a first chunk, which is plainly causal and cheaper that way.
    """

    rows: slice
    planes: torch.Tensor
    mask: torch.Tensor | None


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


def plan_pages(bindings: dict[str, np.ndarray], shape: EngineShape) -> PagePlan:
    """Reads the contract's bindings and prepares a step's indices."""
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
    spans = tuple(_context_span(i, first_row, lengths, ends, tables, shape) for i in range(num_contexts))
    start = int(first_row[num_contexts]) if num_contexts < len(ends) else len(sequence)
    planes, mask = _generation_pages(ends[num_contexts:], tables[num_contexts:], shape)
    return PagePlan(
        positions=torch.from_numpy(positions),
        write_rows=torch.from_numpy(write.ravel()),
        contexts=spans,
        generation_rows=slice(start, len(sequence)),
        planes=planes,
        mask=mask,
    )


def plan_last_rows(bindings: dict[str, np.ndarray], shape: EngineShape) -> PagePlan:
    """The plan of the last row of every sequence, whose K and V are written already: all generation rows."""
    ends = bindings["sequence_length"].astype(np.int64)
    planes, mask = _generation_pages(ends, bindings["kv_cache_block_offsets"][0].astype(np.int64), shape)
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


def _generation_pages(ends: np.ndarray, tables: np.ndarray, shape: EngineShape) -> tuple[torch.Tensor, torch.Tensor]:
    if not len(ends):
        return torch.empty(0, dtype=torch.int64), torch.empty(0)
    blocks = -(-int(ends.max()) // shape.tokens_per_block)
    visible = np.arange(blocks * shape.tokens_per_block) < ends[:, None]
    mask = np.where(visible, 0.0, -np.inf).astype(np.float32)[:, None, None]
    # Behind its own blocks a sequence repeats its first: another's, though masked, might hold a NaN.
    own = np.arange(blocks) * shape.tokens_per_block < ends[:, None]
    tables = np.where(own[:, None], tables[:, :, :blocks], tables[:, :, :1])
    return _planes(tables, blocks, shape), torch.from_numpy(mask)


def _context_span(
    i: int, first_row: np.ndarray, lengths: np.ndarray, ends: np.ndarray, tables: np.ndarray, shape: EngineShape
) -> ContextSpan:
    begin, end = int(ends[i] - lengths[i]), int(ends[i])
    blocks = -(-end // shape.tokens_per_block)
    mask = None
    if begin:
        visible = np.arange(blocks * shape.tokens_per_block) <= np.arange(begin, end)[:, None]
        mask = torch.from_numpy(np.where(visible, 0.0, -np.inf).astype(np.float32))
    row = int(first_row[i])
    return ContextSpan(slice(row, row + end - begin), _planes(tables[i : i + 1], blocks, shape), mask)


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
    kv = planes.index_select(0, span.planes + first).view(2, kv_heads, 1, -1, dim)
    if span.mask is None:
        kv = kv[:, :, :, :rows]  # what lies behind is the unwritten rest of the last block
    k, v = kv.expand(2, kv_heads, group, kv.shape[3], dim)
    mask = None if span.mask is None else span.mask.to(q.dtype)
    out = F.scaled_dot_product_attention(q.permute(1, 2, 0, 3), k, v, attn_mask=mask, is_causal=mask is None)
    return out.permute(2, 0, 1, 3)  # [rows, kv heads, group, dim]
