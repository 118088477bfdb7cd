"""Blocks of a paged KV cache and the tables that name them. Plain Python and numpy, no tensors.

A sequence reserves all the blocks it can ever need when it is admitted, so no running stream is
ever stopped for want of memory. A block may be held several times: by sequences that begin alike, and
by a prefix that is kept for later ones (``runtime.scheduling.kv_memory``). Tables hold offsets in the unit
of the attention plugin: one layer's K or V block (contract: ``kv_pool.block_offset_rule``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
        self._holders = [0] * shape.num_blocks
        self._kept: set[int] = set()
        self._idle = 0  # kept blocks that no sequence holds; counted, so that other threads may ask
        self._owned: dict[int, list[int]] = {}
        #: [slots, K or V, blocks of a sequence]; unused entries are 0, which is a valid offset.
        self.offsets = np.zeros((shape.max_batch_size, 2, shape.max_blocks_per_seq), np.int32)

    @property
    def unheld_blocks(self) -> int:
        """Blocks that can be allocated at once."""
        return len(self._free)

    @property
    def free_blocks(self) -> int:
        """Blocks that no sequence holds: free ones, and those that are only kept."""
        return len(self._free) + self._idle

    @property
    def used_blocks(self) -> int:
        """Blocks that sequences hold."""
        return self.shape.num_blocks - self.free_blocks

    def idle(self, kept: Iterable[int]) -> int:
        """How many of these kept blocks no sequence holds."""
        return sum(self._holders[block] == 1 for block in kept)

    def is_free(self, block: int) -> bool:
        """Whether the block is held by no sequence and not kept."""
        return not self._holders[block]

    def blocks_for(self, positions: int) -> int:
        """Blocks that a sequence of so many positions needs."""
        return -(-positions // self.shape.tokens_per_block)

    def blocks_of(self, slot: int) -> list[int]:
        """The slot's blocks in the order of their positions."""
        return list(self._owned[slot])

    def allocate(self, slot: int, positions: int, shared: Sequence[int] = ()) -> None:
        """Reserves blocks for ``positions`` and writes the slot's table.

        Args:
            shared: held blocks that hold the first positions already, each to its end.
        """
        assert slot not in self._owned, f"slot {slot} already holds blocks"
        fresh = self.blocks_for(positions) - len(shared)
        assert 0 <= fresh <= len(self._free), "allocate() without room"
        blocks = [*shared, *(self._free.pop() for _ in range(fresh))]
        self._hold(blocks)
        self._owned[slot] = blocks
        keys = np.asarray(blocks, np.int32) * (self.shape.num_layers * 2)
        self.offsets[slot] = 0
        self.offsets[slot, 0, : len(blocks)] = keys
        self.offsets[slot, 1, : len(blocks)] = keys + 1

    def release(self, slot: int) -> None:
        """Gives the slot's blocks back; blocks need no clearing."""
        self._let_go(self._owned.pop(slot))

    def keep(self, blocks: Sequence[int], fresh: int = 0) -> list[int]:
        """Holds blocks, and so many fresh ones, beyond the life of their sequences; returns all of them."""
        kept = [*blocks, *(self._free.pop() for _ in range(fresh))]
        self._hold(kept)
        self._kept.update(kept)
        self._idle += self.idle(kept)
        return kept

    def drop(self, kept: Sequence[int]) -> None:
        """Ends ``keep``."""
        self._idle -= self.idle(kept)
        self._kept.difference_update(kept)
        self._let_go(kept)

    def _hold(self, blocks: Sequence[int]) -> None:
        for block in blocks:
            self._idle -= block in self._kept and self._holders[block] == 1
            self._holders[block] += 1

    def _let_go(self, blocks: Sequence[int]) -> None:
        for block in reversed(blocks):
            self._holders[block] -= 1
            self._idle += block in self._kept and self._holders[block] == 1
            if not self._holders[block]:
                self._free.append(block)
