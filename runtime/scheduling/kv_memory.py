"""Blocks of a model's caches for streams, and the beginnings that streams share. Plain Python.

Conversations under one system message begin alike, so its keys and values are computed once. A stream
that begins with a known prefix holds the prefix's full blocks beside all others that do, and gets a copy
of the block that the prefix fills in part. A prefix is read-only: positions after it are written to the stream's
own blocks. Prefixes that no stream uses make room when blocks run short, the one longest unused first.
Only system messages are shared (``Prompt.shared``): nothing that a user said is ever another's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.scheduling.caches import Cache
from runtime.scheduling.stream import Stream

Key = tuple[bool, bytes]


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """One block's keys and values of all layers, to be copied before a step. ``cache``: its number."""

    cache: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """Text steps that are known, and the blocks of each cache that hold them."""

    positions: int
    blocks: tuple[tuple[int, ...], ...]


class KvMemory:
    """The caches of the streams.

    Args:
        caches: those that only speaking streams need come last.
        max_prefixes: beginnings kept at most; 0 shares nothing.
    """

    def __init__(self, caches: Sequence[Cache], max_prefixes: int) -> None:
        self._caches = tuple(caches)
        self._silent = tuple(cache for cache in caches if not cache.spec.only_speaking)
        assert self._caches[: len(self._silent)] == self._silent, "caches of speaking streams come last"
        self._max_prefixes = max_prefixes
        self._prefixes: OrderedDict[Key, Prefix] = OrderedDict()  # the one longest unused first
        self._copies: list[BlockCopy] = []
        self.hits = 0

    @property
    def free_blocks(self) -> tuple[int, ...]:
        """Blocks of each cache that no stream holds."""
        return tuple(cache.kv.free_blocks for cache in self._caches)

    @property
    def used_blocks(self) -> tuple[int, ...]:
        """Blocks of each cache that streams hold."""
        return tuple(cache.kv.used_blocks for cache in self._caches)

    def blocks_for(self, stream: Stream) -> list[int]:
        """Blocks of each cache for the stream's longest possible answer."""
        return [cache.blocks_for(stream.max_positions) for cache in self._of(stream)]

    def make_room(self, stream: Stream) -> bool:
        """Whether the stream fits now; prefixes that no stream uses go when it does not fit beside them."""
        prefix = self._find(stream)
        if prefix is not None and not self._could_fit(stream, prefix):
            prefix = None  # a prefix costs a block of its own, which may be the one that is missing
        if not self._could_fit(stream, prefix):
            return False
        needs = self._needs(stream, prefix)
        while any(need > cache.kv.unheld_blocks for need, cache in zip(needs, self._of(stream), strict=True)):
            self._forget_idle(prefix)
        return True

    def admit(self, stream: Stream) -> None:
        """Reserves blocks for the stream, which has a slot; ``make_room`` must have said yes.

        Its position is then behind what it shares.
        """
        key, prefix = self._key(stream), self._find(stream)
        if prefix is None:
            for cache in self._of(stream):
                cache.kv.allocate(stream.slot, stream.max_positions * cache.spec.positions)
            return
        self._prefixes.move_to_end(key)
        self.hits += 1
        for number, (full, rest) in enumerate(self._cuts(stream, prefix.positions)):
            cache, blocks = self._caches[number], prefix.blocks[number]
            cache.kv.allocate(stream.slot, stream.max_positions * cache.spec.positions, blocks[:full])
            if rest:
                self._copies.append(BlockCopy(number, blocks[full], cache.kv.blocks_of(stream.slot)[full]))
        stream.position = stream.skipped = prefix.positions

    def release(self, stream: Stream) -> None:
        """Gives back what ``admit`` reserved."""
        for cache in self._of(stream):
            cache.kv.release(stream.slot)

    def learn(self, stream: Stream) -> None:
        """Keeps the stream's beginning for others; its prefill must just have passed it."""
        key, positions = self._key(stream), stream.prompt.shared
        if key in self._prefixes or not self._max_prefixes:
            return
        cuts = self._cuts(stream, positions)
        if any(rest and not cache.kv.unheld_blocks for (_, rest), cache in zip(cuts, self._of(stream), strict=True)):
            return  # too full for a luxury
        if len(self._prefixes) == self._max_prefixes:
            self._drop(next(iter(self._prefixes)))
        blocks = []
        for number, (full, rest) in enumerate(cuts):
            cache = self._caches[number].kv
            own = cache.blocks_of(stream.slot)
            blocks.append(tuple(cache.keep(own[:full], fresh=bool(rest))))
            if rest:
                self._copies.append(BlockCopy(number, own[full], blocks[number][full]))
        self._prefixes[key] = Prefix(positions, tuple(blocks))

    def discard(self, stream: Stream) -> list[list[int]]:
        """``release`` for a stream whose numbers cannot be trusted: no other may begin with its beginning.

        Returns:
            Blocks of each cache that are free now. They must be cleared.
        """
        prefix, caches = self._find(stream), self._of(stream)
        touched = [set(cache.kv.blocks_of(stream.slot)) for cache in caches]
        if prefix is not None:
            for blocks, kept in zip(touched, prefix.blocks, strict=True):
                blocks.update(kept)
            self._drop(self._key(stream))
        self.release(stream)
        return [sorted(b for b in blocks if cache.kv.is_free(b)) for blocks, cache in zip(touched, caches, strict=True)]

    def take_copies(self) -> tuple[BlockCopy, ...]:
        """Copies that the next step begins with, in this order."""
        copies, self._copies = tuple(self._copies), []
        return copies

    def _of(self, stream: Stream) -> tuple[Cache, ...]:
        """The caches that the stream needs."""
        return self._caches if stream.params.speaks else self._silent

    def _cuts(self, stream: Stream, positions: int) -> list[tuple[int, int]]:
        """Full blocks of each cache, and positions in the block behind them."""
        return [cache.cut(positions) for cache in self._of(stream)]

    def _key(self, stream: Stream) -> Key:
        return stream.params.speaks, stream.prompt.ids[: stream.prompt.shared].tobytes()

    def _find(self, stream: Stream) -> Prefix | None:
        return self._prefixes.get(self._key(stream))

    def _needs(self, stream: Stream, prefix: Prefix | None) -> list[int]:
        """Blocks of each cache that the stream needs for itself."""
        full = [0] * len(self._caches) if prefix is None else [full for full, _ in self._cuts(stream, prefix.positions)]
        return [need - shared for need, shared in zip(self.blocks_for(stream), full, strict=False)]

    def _could_fit(self, stream: Stream, prefix: Prefix | None) -> bool:
        """Whether there is room once all other prefixes that no stream uses are gone."""
        mine: tuple[tuple[int, ...], ...] = ((),) * len(self._caches) if prefix is None else prefix.blocks
        return all(
            need <= cache.kv.free_blocks - cache.kv.idle(blocks)
            for need, cache, blocks in zip(self._needs(stream, prefix), self._of(stream), mine, strict=False)
        )

    def _forget_idle(self, wanted: Prefix | None) -> None:
        """Drops the prefix longest unused among those that free a block by it."""
        for key, prefix in self._prefixes.items():
            idle = any(cache.kv.idle(blocks) for cache, blocks in zip(self._caches, prefix.blocks, strict=False))
            if idle and prefix is not wanted:
                self._drop(key)
                return
        raise AssertionError("free blocks are neither unheld nor kept")

    def _drop(self, key: Key) -> None:
        for cache, blocks in zip(self._caches, self._prefixes.pop(key).blocks, strict=False):
            cache.kv.drop(blocks)
