"""Blocks of a paged KV cache and the tables that name them. Plain Python and numpy, no tensors.

A sequence reserves all the blocks it can ever need when it is admitted, so no running stream is
ever stopped for want of memory. Tables hold offsets in the unit of the attention plugin: one layer's
K or V block (contract: ``kv_pool.block_offset_rule``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.engines.base import EngineShape


class KvCache:
    """Free blocks and the block table of every slot of one engine.

    Args:
        order: all block numbers in the order in which they are handed out; ascending by default.
    """

    def __init__(self, shape: EngineShape, order: Sequence[int] | None = None) -> None:
        self.shape = shape
        self._free = list(reversed(range(shape.num_blocks) if order is None else order))
        self._owned: dict[int, list[int]] = {}
        #: [slots, K or V, blocks of a sequence]; unused entries are 0, which is a valid offset.
        self.offsets = np.zeros((shape.max_batch_size, 2, shape.max_blocks_per_seq), np.int32)

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence holds."""
        return len(self._free)

    @property
    def used_blocks(self) -> int:
        """Blocks that sequences hold."""
        return self.shape.num_blocks - len(self._free)

    def blocks_for(self, positions: int) -> int:
        """Blocks that a sequence of so many positions needs."""
        return -(-positions // self.shape.tokens_per_block)

    def fits(self, positions: int) -> bool:
        """Whether a sequence of so many positions could be admitted now."""
        return self.blocks_for(positions) <= len(self._free)

    def allocate(self, slot: int, positions: int) -> None:
        """Reserves blocks for ``positions`` and writes the slot's table."""
        count = self.blocks_for(positions)
        assert slot not in self._owned, f"slot {slot} already holds blocks"
        assert count <= len(self._free), "allocate() without fits()"
        blocks = [self._free.pop() for _ in range(count)]
        self._owned[slot] = blocks
        keys = np.asarray(blocks, np.int32) * (self.shape.num_layers * 2)
        self.offsets[slot] = 0
        self.offsets[slot, 0, :count] = keys
        self.offsets[slot, 1, :count] = keys + 1

    def blocks_of(self, slot: int) -> list[int]:
        """Numbers of the blocks that a slot holds; none when it holds none."""
        return list(self._owned.get(slot, ()))

    def release(self, slot: int) -> None:
        """Gives the slot's blocks back; blocks need no clearing."""
        self._free.extend(reversed(self._owned.pop(slot)))
