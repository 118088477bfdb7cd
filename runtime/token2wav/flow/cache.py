"""Keys, values and convolution tails of the frames that the flow is done with, for all streams.

Blocks of all streams lie in one pool of each layer, so that rows of a call differ only in their
tables. A stream holds as many blocks as a frame may see before its own; a new one takes the place of
the oldest. Values are per Euler step, because every step sees other velocities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from runtime.graphs.memory import Array, Memory
from runtime.token2wav.chunks import Arrays
from runtime.token2wav.layout import NO_BLOCK, Sizes

GUIDANCE_ROWS, POSITION_CONVS, KEY_VALUE = 2, 2, 2


def pool_blocks(streams: int, window: int) -> int:
    """Blocks of a pool that never runs out; at least one, because a graph's input is never empty."""
    return max(1, streams * window)


def tail_shape(sizes: Sizes) -> tuple[int, ...]:
    """Of one stream's convolution tails, all Euler steps."""
    return (sizes.euler_steps, GUIDANCE_ROWS, POSITION_CONVS, sizes.dim, sizes.tail_frames)


def block_shape(sizes: Sizes) -> tuple[int, ...]:
    """Of one block's keys and values, one layer and one Euler step."""
    return (GUIDANCE_ROWS, KEY_VALUE, sizes.heads, sizes.block_frames, sizes.head_dim)


def stream_bytes(sizes: Sizes) -> int:
    """Of a stream without blocks: its tails."""
    return prod(tail_shape(sizes)) * np.dtype(np.float32).itemsize


def block_bytes(sizes: Sizes, dtype: np.dtype) -> int:
    """Of one block of a stream, all layers and Euler steps."""
    return sizes.depth * sizes.euler_steps * prod(block_shape(sizes)) * dtype.itemsize


@dataclass(slots=True)
class StreamCache:
    """One stream: tails [steps, 2, 2, dim, 30], complete blocks so far, pool rows of the last of them."""

    tails: Array
    blocks: int = 0
    table: list[int] = field(default_factory=list)
    written: int = 0  # how often blocks and tails were written


class FlowCache:
    """The pool.

    Args:
        sizes: of the exported folder.
        streams: most streams at once.
        window: blocks that a frame sees before its own.
        dtype: of keys and values.
        memory: where they live.
    """

    def __init__(self, sizes: Sizes, streams: int, window: int, dtype: str, memory: Memory) -> None:
        self._sizes, self.window, self._memory = sizes, window, memory
        rows = pool_blocks(streams, window)
        shape = (sizes.euler_steps, rows, *block_shape(sizes))
        self._layers = [memory.zeros(shape, dtype) for _ in range(sizes.depth)]
        self._free = list(range(rows - 1, -1, -1)) if window else []
        self._open = self._used = 0
        self.stream_bytes, self.block_bytes = stream_bytes(sizes), block_bytes(sizes, np.dtype(dtype))
        self.limit_bytes = streams * (self.stream_bytes + window * self.block_bytes)

    @property
    def held_bytes(self) -> int:
        """Memory of all open streams."""
        return self._open * self.stream_bytes + self._used * self.block_bytes

    def open(self) -> StreamCache:
        """A stream that begins with silence."""
        self._open += 1
        return StreamCache(self._memory.zeros(tail_shape(self._sizes), "float32"))

    def close(self, cache: StreamCache) -> None:
        """Frees the stream's blocks; they need no clearing."""
        self._free += cache.table
        self._open -= 1
        self._used -= len(cache.table)
        cache.table = []

    def tables(self, caches: Sequence[StreamCache]) -> Arrays:
        """``tables`` and ``table_blocks`` [streams, slots], as wide as the longest and at least 1."""
        slots = max(1, *(len(cache.table) for cache in caches))
        tables = np.zeros((len(caches), slots), np.int64)
        blocks = np.full((len(caches), slots), NO_BLOCK, np.int64)
        for i, cache in enumerate(caches):
            held = len(cache.table)
            newest = cache.blocks - 1
            tables[i, :held] = cache.table
            blocks[i, :held] = [newest - (newest - slot) % self.window for slot in range(held)]
        return {"tables": tables, "table_blocks": blocks}

    def stack_tails(self, caches: Sequence[StreamCache], step: int) -> Array:
        """Tails of several streams at one Euler step [streams, 2, 2, dim, 30]."""
        return self._memory.stack([cache.tails[step] for cache in caches])

    def layers(self, step: int) -> Arrays:
        """Pools of all layers at one Euler step, under the names of the graph's inputs."""
        return {f"caches_{i}": layer[step] for i, layer in enumerate(self._layers)}

    def store(self, caches: Sequence[StreamCache], counts: Sequence[int], step: int, found: Arrays) -> None:
        """Keeps what a step found out about new complete blocks: ``counts`` of them for each stream.

        Args:
            found: ``keys_values`` [depth, streams, 2, 2, heads, T, head dim] and ``next_tails``.
        """
        frames = self._sizes.block_frames
        for row, (cache, count) in enumerate(zip(caches, counts, strict=True)):
            cache.tails[step] = found["next_tails"][row]
            cache.written += bool(count)  # without a new block the tails are those from before
            for block in range(max(0, count - self.window), count):
                place = self._row(cache, cache.blocks + block)
                new = found["keys_values"][:, row, ..., block * frames : (block + 1) * frames, :]
                for layer, values in zip(self._layers, new, strict=True):
                    layer[step, place] = values

    def advance(self, caches: Sequence[StreamCache], counts: Sequence[int]) -> None:
        """All steps of a call are stored: the new blocks count from now on."""
        for cache, count in zip(caches, counts, strict=True):
            cache.blocks += count

    def scrub(self, cache: StreamCache) -> None:
        """Clears the blocks of a stream that holds numbers which are not finite."""
        for layer in self._layers:
            layer[:, cache.table] = 0

    def _row(self, cache: StreamCache, block: int) -> int:
        """Pool row of a stream's block: that of the block which no later frame sees."""
        slot = block % self.window
        while slot >= len(cache.table):
            cache.table.append(self._free.pop())
            self._used += 1
        return cache.table[slot]
