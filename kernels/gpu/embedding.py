"""Gathers of embeddings fused with what follows them. Twins: ``kernels.embedding``."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from kernels.linear import Matrix

BLOCK = 1024  # columns of one program


@triton.jit
def _mean_rows(table, codes, fed, out, width, GROUP: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    # A row that is not fed reads nothing: its zeros make no difference to the matrix that follows.
    inside = (column < width) & (tl.load(fed + row) != 0)
    total = tl.zeros([BLOCK], tl.float32)
    for i in tl.static_range(GROUP):
        code = tl.load(codes + row * GROUP + i)
        total += tl.load(table + code * width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, (total / GROUP).to(out.dtype.element_ty), mask=column < width)


@triton.jit
def _mix_text(table, ids, spoken, fed, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    is_fed = tl.load(fed + row) != 0
    text = tl.load(table + tl.load(ids + row) * width + column, mask=inside, other=0.0).to(tl.float32)
    other = tl.load(spoken + row * width + column, mask=inside & is_fed, other=0.0).to(tl.float32)
    kind = out.dtype.element_ty
    mixed = (text + other).to(kind).to(tl.float32) / 2
    tl.store(out + row * width + column, tl.where(is_fed, mixed, text).to(kind), mask=inside)


@triton.jit
def _add_embedding(rows, stride, table, ids, id_stride, out, width, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    value = tl.load(rows + row * stride + column, mask=inside, other=0.0).to(tl.float32)
    value += tl.load(table + tl.load(ids + row * id_stride) * width + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + column, value.to(out.dtype.element_ty), mask=inside)


def mean_rows(table: torch.Tensor, codes: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    rows, group = codes.shape
    width = table.shape[1]
    out = torch.empty(rows, width, dtype=table.dtype, device=table.device)
    grid = (rows, triton.cdiv(width, BLOCK))
    _mean_rows[grid](table, codes.contiguous(), fed, out, width, GROUP=group, BLOCK=BLOCK)
    return out


def mix_text(table: torch.Tensor, ids: torch.Tensor, spoken: torch.Tensor, fed: torch.Tensor) -> torch.Tensor:
    """See the twin."""
    out = torch.empty_like(spoken)
    width = table.shape[1]
    grid = (len(ids), triton.cdiv(width, BLOCK))
    _mix_text[grid](table, ids.contiguous(), spoken, fed, out, width, BLOCK=BLOCK)
    return out


def add_embedding(rows: torch.Tensor, table: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """See the twin. The last axis of ``rows`` must be dense; ids may have any stride."""
    width = table.shape[1]
    out = torch.empty(len(rows), width, dtype=rows.dtype, device=rows.device)
    grid = (len(rows), triton.cdiv(width, BLOCK))
    _add_embedding[grid](rows, rows.stride(0), table, ids, ids.stride(0), out, width, BLOCK=BLOCK)
    return out


def group_embedding(
    table: torch.Tensor,
    ids: torch.Tensor,
    codebook: torch.Tensor,
    codes: torch.Tensor,
    fed: torch.Tensor,
    projection: Matrix,
) -> torch.Tensor:
    """See the twin."""
    return mix_text(table, ids, projection(mean_rows(codebook, codes, fed)), fed)
