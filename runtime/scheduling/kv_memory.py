"""Blocks of both caches for streams, and the beginnings that streams share. Plain Python.

Conversations under one system message begin alike, so its keys and values are computed once. A stream
that begins with a known prefix holds the prefix's full blocks beside all others that do, and gets a copy
of the block that the prefix fills in part. Nobody writes to a prefix's blocks: what lies behind it goes to
the stream's own. Prefixes nobody uses make room when blocks run short, the one longest unused first.
Only system messages are shared (``Prompt.shared``): nothing that a user said is ever another's.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from runtime.engines.kv_cache import KvCache
from runtime.scheduling.stream import Stream

BACKBONE, SPEECH = 0, 1
Key = tuple[bool, bytes]


@dataclass(frozen=True, slots=True)
class BlockCopy:
    """One block's keys and values of all layers, to be copied before a step. ``cache``: BACKBONE or SPEECH."""

    cache: int
    source: int
    target: int


@dataclass(frozen=True, slots=True)
class Prefix:
    """Backbone positions that are known, and the blocks of each cache that hold them."""

    positions: int
    blocks: tuple[tuple[int, ...], ...]


class KvMemory:
    """Both caches of the streams.

    Args:
        backbone: one position per text step.
        speech: ``group_size`` positions per text step.
        max_prefixes: beginnings kept at most; 0 shares nothing.
    """

    def __init__(self, backbone: KvCache, speech: KvCache, group_size: int, max_prefixes: int) -> None:
        self._caches = ((backbone, 1), (speech, group_size))
        self._max_prefixes = max_prefixes
        self._prefixes: OrderedDict[Key, Prefix] = OrderedDict()  # the one longest unused first
        self._copies: list[BlockCopy] = []
        self.hits = 0

    @property
    def free_blocks(self) -> tuple[int, int]:
        """Blocks of both caches that no stream holds."""
        return self._caches[BACKBONE][0].free_blocks, self._caches[SPEECH][0].free_blocks

    @property
    def used_blocks(self) -> tuple[int, int]:
        """Blocks of both caches that streams hold."""
        return self._caches[BACKBONE][0].used_blocks, self._caches[SPEECH][0].used_blocks

    def blocks_for(self, stream: Stream) -> list[int]:
        """Blocks of each cache for the stream's longest possible answer."""
        return [cache.blocks_for(stream.max_positions * factor) for cache, factor in self._of(stream)]

    def make_room(self, stream: Stream) -> bool:
        """Whether the stream fits now; prefixes that nobody uses go when it does not fit beside them."""
        prefix = self._find(stream)
        if prefix is not None and not self._could_fit(stream, prefix):
            prefix = None  # a prefix costs a block of its own, which may be the one that is missing
        if not self._could_fit(stream, prefix):
            return False
        needs = self._needs(stream, prefix)
        while any(need > cache.unheld_blocks for need, (cache, _) in zip(needs, self._of(stream), strict=True)):
            self._forget_idle(prefix)
        return True

    def admit(self, stream: Stream) -> None:
        """Reserves blocks for the stream, which has a slot; ``make_room`` must have said yes.

        Its position is then behind what it shares.
        """
        key, prefix = self._key(stream), self._find(stream)
        if prefix is None:
            for cache, factor in self._of(stream):
                cache.allocate(stream.slot, stream.max_positions * factor)
            return
        self._prefixes.move_to_end(key)
        self.hits += 1
        for number, (full, rest) in enumerate(self._cuts(stream, prefix.positions)):
            cache, factor = self._caches[number]
            blocks = prefix.blocks[number]
            cache.allocate(stream.slot, stream.max_positions * factor, blocks[:full])
            if rest:
                self._copies.append(BlockCopy(number, blocks[full], cache.blocks_of(stream.slot)[full]))
        stream.position = stream.skipped = prefix.positions

    def release(self, stream: Stream) -> None:
        """Gives back what ``admit`` reserved."""
        for cache, _ in self._of(stream):
            cache.release(stream.slot)

    def learn(self, stream: Stream) -> None:
        """Keeps the stream's beginning for others; its prefill must just have passed it."""
        key, positions = self._key(stream), stream.prompt.shared
        if key in self._prefixes or not self._max_prefixes:
            return
        cuts = self._cuts(stream, positions)
        if any(rest and not cache.unheld_blocks for (_, rest), (cache, _) in zip(cuts, self._of(stream), strict=True)):
            return  # too full for a luxury
        if len(self._prefixes) == self._max_prefixes:
            self._drop(next(iter(self._prefixes)))
        blocks = []
        for number, (full, rest) in enumerate(cuts):
            cache, own = self._caches[number][0], self._caches[number][0].blocks_of(stream.slot)
            blocks.append(tuple(cache.keep(own[:full], fresh=bool(rest))))
            if rest:
                self._copies.append(BlockCopy(number, own[full], blocks[number][full]))
        self._prefixes[key] = Prefix(positions, tuple(blocks))

    def discard(self, stream: Stream) -> list[list[int]]:
        """``release`` for a stream whose numbers cannot be trusted: nobody may begin with its beginning.

        Returns:
            Blocks of each cache that nobody holds any more. They must be cleared.
        """
        prefix, caches = self._find(stream), self._of(stream)
        touched = [set(cache.blocks_of(stream.slot)) for cache, _ in caches]
        if prefix is not None:
            for blocks, kept in zip(touched, prefix.blocks, strict=True):
                blocks.update(kept)
            self._drop(self._key(stream))
        self.release(stream)
        return [
            sorted(b for b in blocks if cache.is_free(b)) for blocks, (cache, _) in zip(touched, caches, strict=True)
        ]

    def take_copies(self) -> tuple[BlockCopy, ...]:
        """Copies that the next step begins with, in this order."""
        copies, self._copies = tuple(self._copies), []
        return copies

    def _of(self, stream: Stream) -> tuple[tuple[KvCache, int], ...]:
        """The caches that the stream needs, each with its positions per text step."""
        return self._caches if stream.params.speaks else self._caches[:SPEECH]

    def _cuts(self, stream: Stream, positions: int) -> list[tuple[int, int]]:
        """Full blocks of each cache, and positions in the block behind them."""
        return [divmod(positions * factor, cache.shape.tokens_per_block) for cache, factor in self._of(stream)]

    def _key(self, stream: Stream) -> Key:
        return stream.params.speaks, stream.prompt.ids[: stream.prompt.shared].tobytes()

    def _find(self, stream: Stream) -> Prefix | None:
        return self._prefixes.get(self._key(stream))

    def _needs(self, stream: Stream, prefix: Prefix | None) -> list[int]:
        """Blocks of each cache that the stream needs for itself."""
        full = [0, 0] if prefix is None else [full for full, _ in self._cuts(stream, prefix.positions)]
        return [need - shared for need, shared in zip(self.blocks_for(stream), full, strict=False)]

    def _could_fit(self, stream: Stream, prefix: Prefix | None) -> bool:
        """Whether there is room once all other prefixes that nobody uses are gone."""
        mine: tuple[tuple[int, ...], ...] = ((), ()) if prefix is None else prefix.blocks
        return all(
            need <= cache.free_blocks - cache.idle(blocks)
            for need, (cache, _), blocks in zip(self._needs(stream, prefix), self._of(stream), mine, strict=False)
        )

    def _forget_idle(self, wanted: Prefix | None) -> None:
        """Drops the prefix longest unused among those that free a block by it."""
        for key, prefix in self._prefixes.items():
            idle = any(cache.idle(blocks) for (cache, _), blocks in zip(self._caches, prefix.blocks, strict=False))
            if idle and prefix is not wanted:
                self._drop(key)
                return
        raise AssertionError("free blocks are neither unheld nor kept")

    def _drop(self, key: Key) -> None:
        for (cache, _), blocks in zip(self._caches, self._prefixes.pop(key).blocks, strict=False):
            cache.drop(blocks)
