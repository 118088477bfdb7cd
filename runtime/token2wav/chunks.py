"""What both stages share: a packed batch of chunks, a bounded table of stream states, and failing rows kept apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from runtime.contracts import LOST_STREAM, ChunkFlag
from runtime.errors import InvalidRequest, Overloaded
from runtime.logs import log_fault

Arrays = dict[str, Any]  # by name; numpy at the stages' doors, ``runtime.graphs.memory.Array`` at their graphs
Graph = Callable[[Arrays], Arrays]
State = TypeVar("State")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Chunk:
    """One row of a call. ``part`` is its share of the packed input; None: the stage before lost it, see ``lost``."""

    stream_id: int
    flag: ChunkFlag
    part: np.ndarray | None
    lost: int = 0  # one of LOST_STREAM, or 0

    @property
    def last(self) -> bool:
        """Whether the stream's state goes after this chunk."""
        return bool(self.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE))


def read_chunks(arrays: Arrays, packed: str, lengths: str) -> list[Chunk]:
    """The chunks of a call.

    Args:
        arrays: inputs of the ``flow`` or ``vocoder`` contract.
        packed: name of the input that holds all parts one after another along its last axis.
        lengths: name of the input that holds their lengths.

    Raises:
        InvalidRequest: the inputs do not fit each other.
    """
    ids, flags, counts = arrays["stream_ids"].tolist(), arrays["chunk_flags"].tolist(), arrays[lengths]
    if not len(ids) == len(flags) == len(counts):
        problem = f"has {len(counts)} entries beside {len(ids)} stream_ids and {len(flags)} chunk_flags"
        raise InvalidRequest(lengths, problem, "give one of each per chunk")
    if len(set(ids)) != len(ids):
        raise InvalidRequest("stream_ids", "names a stream twice", "send one chunk per stream and call")
    if counts.size and counts.min() < min(LOST_STREAM):
        raise InvalidRequest(lengths, f"holds {counts.min()}", "lengths count from 0")
    ends = np.cumsum(np.maximum(counts, 0))
    total = int(ends[-1]) if ends.size else 0
    if total != arrays[packed].shape[-1]:
        raise InvalidRequest(lengths, f"adds up to {total}, not to {arrays[packed].shape[-1]}", f"fit it to {packed}")
    parts = np.split(arrays[packed], ends[:-1], axis=-1)
    return [
        Chunk(id_, ChunkFlag(flag), None, int(count)) if count < 0 else Chunk(id_, ChunkFlag(flag), part)
        for id_, flag, count, part in zip(ids, flags, counts, parts, strict=False)
    ]


Row = TypeVar("Row")
Result = TypeVar("Result")


def each_that_works(rows: Sequence[Row], call: Callable[[Sequence[Row]], Sequence[Result]]) -> list[Result | None]:
    """One call for all rows; when it fails each row alone, so that only the guilty ones are lost (None).

    Args:
        call: leaves the state of its rows as it was when it raises, or drops it.
    """
    try:
        return list(call(rows))
    except Exception as error:  # whatever it is, it must not end the streams of the other rows
        log_fault(logger, f"a call for {len(rows)} streams failed", error)
        return [None] if len(rows) == 1 else [result for row in rows for result in each_that_works([row], call)]


class StreamTable(Generic[State]):
    """States by stream id.

    Args:
        owner: name of the stage, for messages.
        limit: most streams at once.
        save: what puts the state back as it is now, and says whether that was possible.
        release: takes the state of a stream that is over.
    """

    def __init__(
        self,
        owner: str,
        limit: int,
        save: Callable[[State], Callable[[], bool]],
        release: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._owner, self._limit, self._save, self._release = owner, limit, save, release
        self._states: dict[int, State] = {}

    def __len__(self) -> int:
        return len(self._states)

    def values(self) -> Iterable[State]:
        """States of all streams."""
        return self._states.values()

    def check_room(self, chunks: Sequence[Chunk]) -> None:
        """Raises Overloaded when the call would start more streams than there is room for; call it first."""
        starting = {chunk.stream_id for chunk in chunks if chunk.flag & ChunkFlag.START}
        ending = {chunk.stream_id for chunk in chunks if chunk.flag & ChunkFlag.RELEASE}
        if len((self._states.keys() | starting) - ending) > self._limit:
            raise Overloaded(self._owner, f"holds {len(self)} of {self._limit} streams", "retry in a few seconds")

    def start(self, stream_id: int, state: State) -> None:
        """State of a stream that begins, in place of what an earlier one of that id may have left."""
        self.drop(stream_id)
        self._states[stream_id] = state

    def get(self, stream_id: int) -> State | None:
        """None: never started here, ended, or lost in a restart."""
        return self._states.get(stream_id)

    def drop(self, stream_id: int) -> None:
        """Frees a stream's state, if there is any."""
        state = self._states.pop(stream_id, None)
        if state is not None:
            self._release(state)

    @contextmanager
    def serving(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Frees streams whose last chunk this is; when the call fails, all are as they were before.

        A stream whose caches were written already cannot be put back: it is dropped, and its next chunk finds
        it lost. Streams to release go first: their room may be what others start in.
        """
        for chunk in chunks:
            if chunk.flag & ChunkFlag.RELEASE:
                self.drop(chunk.stream_id)
        saved = {c.stream_id: self._save(self._states[c.stream_id]) for c in chunks if c.stream_id in self._states}
        try:
            yield
        except BaseException:
            for chunk in chunks:
                if chunk.flag & ChunkFlag.START or not saved.get(chunk.stream_id, _gone)():
                    self.drop(chunk.stream_id)
            raise
        for chunk in chunks:
            if chunk.last:
                self.drop(chunk.stream_id)


def _gone() -> bool:
    """Of a stream that was not there before."""
    return False
