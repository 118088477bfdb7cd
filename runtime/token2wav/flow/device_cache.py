"""The flow's caches in tensors on a device, with a spare row for blocks and streams that are not kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from runtime.graphs.memory import HostMemory
from runtime.token2wav.chunks import Arrays
from runtime.token2wav.flow.cache import GUIDANCE_ROWS, KEY_VALUE, POSITION_CONVS, FlowCache, StreamCache
from runtime.token2wav.layout import NO_BLOCK, Sizes


class DeviceFlowCache(FlowCache):
    """Bookkeeping of ``FlowCache``; ``StreamCache.tails`` holds the row of the stream's tails instead of them.

    ``blocks`` [steps, depth, rows + 1, 2, 2, heads, block frames, head dim] keys and values;
    ``tails`` [steps, streams + 1, 2, 2, dim, tail frames] float32.
    """

    def __init__(self, sizes: Sizes, streams: int, window: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(sizes, 0, window, "float32", HostMemory())  # its arrays stay empty
        rows = streams * window
        block = (GUIDANCE_ROWS, KEY_VALUE, sizes.heads, sizes.block_frames, sizes.head_dim)
        self.blocks = torch.zeros(sizes.euler_steps, sizes.depth, rows + 1, *block, dtype=dtype, device=device)
        shape = (sizes.euler_steps, streams + 1, GUIDANCE_ROWS, POSITION_CONVS, sizes.dim, sizes.tail_frames)
        self.tails = torch.zeros(shape, device=device)
        self.spare_block, self.spare_tail = rows, streams
        self._free = list(range(rows - 1, -1, -1))
        self._free_tails = list(range(streams - 1, -1, -1))
        self.stream_bytes = self.tails[:, 0].nbytes
        self.block_bytes = self.blocks[:, :, 0].nbytes
        self.limit_bytes = streams * (self.stream_bytes + window * self.block_bytes)

    def open(self) -> StreamCache:
        self._open += 1
        row = self._free_tails.pop()
        self.tails[:, row].zero_()
        return StreamCache(np.array(row))

    def close(self, cache: StreamCache) -> None:
        self._free_tails.append(int(cache.tails))
        super().close(cache)

    def scrub(self, cache: StreamCache) -> None:
        """See ``FlowCache.scrub``; the tails are cleared when the next stream takes their row.

        The spare rows as well: frames that are not kept were written there, and every stream whose table is not
        full reads them.
        """
        for row in (*cache.table, self.spare_block):  # a list as an index would be copied over, and waited for
            self.blocks[:, :, row].zero_()
        self.tails[:, self.spare_tail] = 0

    def wide_tables(self, caches: Sequence[StreamCache], rows: int) -> Arrays:
        """``tables`` and ``table_blocks`` [rows, window]: always as wide, so that shapes repeat."""
        slots = max(1, self.window)
        tables = np.full((rows, slots), self.spare_block, np.int64)
        blocks = np.full((rows, slots), NO_BLOCK, np.int64)
        if caches:
            found = self.tables(caches)
            width = found["tables"].shape[1]
            known = found["table_blocks"] != NO_BLOCK
            tables[: len(caches), :width] = np.where(known, found["tables"], self.spare_block)
            blocks[: len(caches), :width] = found["table_blocks"]
        return {"tables": tables, "table_blocks": blocks}

    def places(self, caches: Sequence[StreamCache], counts: Sequence[int], rows: int, blocks: int) -> np.ndarray:
        """Where each of ``blocks`` blocks of each row goes [rows * blocks]; the spare row where it is not kept."""
        found = np.full((rows, blocks), self.spare_block, np.int64)
        for row, (cache, count) in enumerate(zip(caches, counts, strict=True)):
            cache.written += bool(count)  # given out to be written
            for block in range(max(0, count - self.window), count):
                found[row, block] = self._row(cache, cache.blocks + block)
        return found.ravel()
