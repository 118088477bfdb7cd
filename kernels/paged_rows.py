"""Rows over a paged pool with everything in tensors: what a captured graph can run. Plain torch twins.

Where ``runtime.engines.torch_attention`` reads the contract's host arrays, here each row names a slot and a
position, and the block tables of all slots lie in one tensor beside the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

TILE_ROWS = 16  # rows of a tile of chunked prefill


@dataclass(frozen=True, slots=True)
class Pool:
    """A paged KV cache.

    ``memory`` [blocks, layers, 2, KV heads, tokens of a block, head size]; ``tables`` [slots, 2, blocks of
    a sequence] int32 offsets in the contract's unit (one layer's K or V block).
    """

    memory: torch.Tensor
    tables: torch.Tensor

    def __post_init__(self) -> None:
        if self.memory.dim() != 6 or self.tables.dim() != 3 or self.tables.shape[1] != 2:
            raise ValueError(f"pool: {list(self.memory.shape)} with tables {list(self.tables.shape)} is no paged pool")

    def gather(self, slot: int, length: int, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a slot's first positions [KV heads, length, head size] each."""
        kv_heads, tokens, dim = self.memory.shape[3:]
        blocks = -(-length // tokens)
        units = self.memory.view(-1, kv_heads, tokens, dim)
        found = units[self.tables[slot, :, :blocks].long() + 2 * layer]  # [2, blocks, kv heads, tokens, dim]
        k, v = found.transpose(1, 2).reshape(2, kv_heads, blocks * tokens, dim)[:, :, :length]
        return k, v


def cut_tiles(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """First row and number of rows of every tile of packed chunks; no tile crosses from one chunk to the next."""
    tiles, first = [], 0
    for length in lengths:
        tiles += [(first + i, min(TILE_ROWS, length - i)) for i in range(0, length, TILE_ROWS)]
        first += length
    return tiles


def attend_rows(q: torch.Tensor, pool: Pool, slots: torch.Tensor, positions: torch.Tensor, layer: int) -> torch.Tensor:
    """Grouped-query attention of single rows over their slots' positions up to and with their own.

    Args:
        q: [rows, heads, head size], rotated. The scale is head_size ** -0.5.
        slots: [rows] int32. positions: [rows] int32.
        layer: of the pool.

    Returns:
        [rows, heads * head size] in the type of q.
    """
    rows = []
    for line, slot, position in zip(q, slots.tolist(), positions.tolist(), strict=True):
        k, v = pool.gather(slot, position + 1, layer)
        grouped = line.view(k.shape[0], -1, line.shape[-1])  # queries of a KV head in the place of positions
        rows.append(F.scaled_dot_product_attention(grouped, k, v).flatten())
    return torch.stack(rows)


def attend_chunks(
    q: torch.Tensor, pool: Pool, slots: torch.Tensor, positions: torch.Tensor, tiles: torch.Tensor, layer: int
) -> torch.Tensor:
    """Causal attention of consecutive rows of sequences over their slots' positions.

    Args:
        q, slots, positions, layer: as in ``attend_rows``.
        tiles: [tiles, 2] int32 first row and number of rows, 0 to ``TILE_ROWS``, of one sequence each.

    Returns:
        [rows, heads * head size].
    """
    out = torch.empty_like(q)
    for first, count in tiles.tolist():
        if not count:
            continue
        begin = int(positions[first])
        k, v = pool.gather(int(slots[first]), begin + count, layer)
        group = q.shape[1] // k.shape[0]
        k, v = (x.repeat_interleave(group, dim=0) for x in (k, v))
        seen = (
            torch.arange(begin + count, device=q.device) <= torch.arange(begin, begin + count, device=q.device)[:, None]
        )
        rows = q[first : first + count].transpose(0, 1)
        out[first : first + count] = F.scaled_dot_product_attention(rows, k, v, attn_mask=seen).transpose(0, 1)
    return out.flatten(1)
