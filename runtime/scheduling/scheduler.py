"""Which streams run in the next step. Plain Python: no tensors, no clock, no threads.

Streams join and leave at step boundaries. A waiting stream is admitted, in the order of
``scheduling.waiting``, when a slot and the blocks of all caches for its longest possible answer are free. Prompts are
prefilled in chunks: all contexts of a step share one budget, so however many streams join, the
running ones wait for at most one chunk. While streams are joining, running ones that are well ahead
of their listener stand back: their next frames are not due yet, and a first word is waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.engines.options import EngineOptions
from runtime.errors import InvalidRequest
from runtime.scheduling.caches import Cache
from runtime.scheduling.kv_memory import BlockCopy, KvMemory
from runtime.scheduling.pace import Capacity
from runtime.scheduling.stream import Stream
from runtime.scheduling.waiting import WaitingQueue


@dataclass(frozen=True, slots=True)
class Chunk:
    """Prompt positions ``begin .. begin + length - 1`` of a stream; ``last`` when they complete it."""

    stream: Stream
    begin: int
    length: int

    @property
    def first(self) -> bool:
        """Whether the stream begins with this chunk: whatever lies before it was there already."""
        return self.begin == self.stream.skipped

    @property
    def last(self) -> bool:
        """Whether the prompt is complete after this chunk."""
        return self.begin + self.length == len(self.stream.prompt)


@dataclass(frozen=True, slots=True)
class Plan:
    """One step: blocks to copy before it, context chunks, then streams that generate one frame."""

    contexts: tuple[Chunk, ...]
    generations: tuple[Stream, ...]
    copies: tuple[BlockCopy, ...] = ()

    @property
    def deciding(self) -> list[Stream]:
        """Streams for which ids are chosen in this step, in the order of their rows."""
        return [chunk.stream for chunk in self.contexts if chunk.last] + list(self.generations)


@dataclass(frozen=True, slots=True)
class Limits:
    """Streams at once, prompt positions prefilled per step, positions of one sequence.

    ``lead_s``: a running stream stands back for joining ones when its listener has so many seconds left.
    ``max_prefixes``: beginnings of prompts kept for others (``runtime.scheduling.kv_memory``).
    """

    max_streams: int
    prefill_chunk: int
    max_positions: int
    lead_s: float = 1.5
    max_prefixes: int = 8

    def __post_init__(self) -> None:
        if self.max_prefixes < 0:
            raise ValueError(f"max_prefixes: {self.max_prefixes} is below 0")
        for name in ("max_streams", "prefill_chunk", "max_positions", "lead_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: {getattr(self, name)} is not positive")

    @classmethod
    def of(cls, options: EngineOptions) -> Limits:
        """What the options of the engines leave."""
        return cls(
            options.max_streams, options.prefill_chunk, options.max_positions, options.lead_s, options.max_prefixes
        )


class Scheduler:
    """Waiting, prefilling and running streams, their slots and their blocks.

    Args:
        limits: see ``Limits``.
        caches: of the model, those that only speaking streams need last.
    """

    def __init__(self, limits: Limits, caches: Sequence[Cache]) -> None:
        self.limits, self.caches = limits, tuple(caches)
        self._memory = KvMemory(caches, limits.max_prefixes)
        self._free_slots = list(range(limits.max_streams - 1, -1, -1))
        self.waiting: WaitingQueue[Stream] = WaitingQueue()
        self.prefilling: list[Stream] = []
        self.running: list[Stream] = []

    @property
    def live(self) -> int:
        """Streams that hold a slot."""
        return len(self.prefilling) + len(self.running)

    @property
    def free_blocks(self) -> tuple[int, ...]:
        """Blocks of each cache that no stream holds."""
        return self._memory.free_blocks

    @property
    def used_blocks(self) -> tuple[int, ...]:
        """Blocks of each cache that streams hold."""
        return self._memory.used_blocks

    @property
    def prefix_hits(self) -> int:
        """Streams so far whose prompt's beginning was there already."""
        return self._memory.hits

    @property
    def resources(self) -> tuple[str, ...]:
        """Names of what ``free`` and ``need`` count."""
        return ("slots", *(cache.spec.resource for cache in self.caches))

    @property
    def free(self) -> Capacity:
        """What no stream holds. Any thread may ask; the answer is as old as the last step."""
        return Capacity(len(self._free_slots), *self.free_blocks)

    def need(self, positions: int, speaks: bool) -> Capacity:
        """What a stream of so many positions takes at most."""
        blocks = (c.blocks_for(positions) if speaks or not c.spec.only_speaking else 0 for c in self.caches)
        return Capacity(1, *blocks)

    def room(self, prompt: int) -> int:
        """Tokens of an answer for which a prompt of so many positions leaves room; 1 where it leaves none."""
        return max(1, self.limits.max_positions - prompt)

    def check_size(self, prompt: int, answer: int, speaks: bool) -> None:
        """Raises InvalidRequest, naming the limit, when such a stream could not run even on an idle server.

        Args:
            prompt: positions of the prompt, at least.
            answer: the most tokens of the answer.
        """
        positions = prompt + answer
        bounds = [("positions", positions, self.limits.max_positions)]
        for cache, blocks in zip(self.caches, self.need(positions, speaks)[1:], strict=True):
            bounds.append((f"KV blocks of the {cache.spec.title}", int(blocks), cache.kv.shape.num_blocks))
        for what, needed, limit in bounds:
            if needed > limit:
                raise InvalidRequest(
                    "max_tokens",
                    f"{prompt} prompt positions and {answer} answer tokens need {needed} {what}, more than the "
                    f"{limit} {what} of this server",
                    "ask for fewer tokens or send less audio",
                )

    def check_fits(self, stream: Stream) -> None:
        """Raises InvalidRequest when the stream could not run even on an idle server."""
        self.check_size(len(stream.prompt), stream.params.max_tokens, stream.params.speaks)

    def add(self, stream: Stream) -> None:
        """Queues a stream that ``check_fits`` accepted."""
        self.waiting.push(stream, stream.priority)

    def remove(self, stream: Stream) -> None:
        """Takes a stream out, wherever it is, and frees what it holds. Removing twice is harmless."""
        if self.waiting.remove(stream) or stream.slot < 0:
            return
        self._memory.release(stream)
        self._unseat(stream)

    def discard(self, stream: Stream) -> list[list[int]]:
        """Takes a stream out whose numbers cannot be trusted; it has a slot.

        Returns:
            Blocks of each cache that it holds, which must be cleared.
        """
        freed = self._memory.discard(stream)
        self._unseat(stream)
        return freed

    def _unseat(self, stream: Stream) -> None:
        (self.running if stream in self.running else self.prefilling).remove(stream)
        self._free_slots.append(stream.slot)
        stream.slot = -1
        stream.on_slot(False)

    def plan(self, now: float = 0.0) -> Plan | None:
        """The next step, or None when there is nothing to do. The step must then be run.

        Args:
            now: seconds of any steady clock; decides only who stands back.
        """
        self._admit()
        joining = bool(self.prefilling)
        generations = tuple(s for s in self.running if not (joining and s.lead(now) > self.limits.lead_s))
        contexts = tuple(self._chunks())
        if not contexts and not generations:
            return None
        copies = self._memory.take_copies()  # before `learn`, whose copies are of what this step computes
        for stream in generations:
            stream.position += 1
        for chunk in contexts:
            chunk.stream.position += chunk.length
            if chunk.begin < chunk.stream.prompt.shared <= chunk.stream.position:
                self._memory.learn(chunk.stream)
            if chunk.last:
                self.prefilling.remove(chunk.stream)
                self.running.append(chunk.stream)
        return Plan(contexts, generations, copies)

    def _admit(self) -> None:
        # Strictly in order: a long request is never overtaken for ever by short ones of its class.
        while self.waiting and self._free_slots and self._memory.make_room(self.waiting.head()):
            stream = self.waiting.pop()
            stream.slot = self._free_slots.pop()
            self._memory.admit(stream)
            self.prefilling.append(stream)
            stream.on_slot(True)

    def _chunks(self) -> list[Chunk]:
        budget, chunks = self.limits.prefill_chunk, []
        for stream in self.prefilling:
            length = min(budget, len(stream.prompt) - stream.position)
            if length:
                chunks.append(Chunk(stream, stream.position, length))
            budget -= length
        return chunks
