"""The sound of one answer: chunks of speech tokens out to token2wav, samples back, in order.

Lives in the asyncio thread. Knows order and deadlines; the arithmetic is in the stage models.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from runtime.contracts import ChunkFlag
from runtime.errors import ServeError
from runtime.playback import Playback
from runtime.serving.stages import SpeechChunk
from runtime.token2wav.hops import ChunkCutter, Cut, HopPolicy, take_joined

Rank = tuple[int, float]
RELEASING, OVERDUE, FIRST, LATER = range(4)  # the order of waiting chunks


class Sound:
    """Chunks of one answer. A span of speech is one token2wav stream; at most one chunk is in flight.

    Args:
        ids: makes stream ids that no other stream of this server has.
        voice: name of the speaker.
        policy: how many tokens make a chunk.
        sample_rate: of the sound, for deadlines.
        on_audio: takes the samples of each chunk, in order.
        on_error: takes the error that ended the sound.
    """

    def __init__(
        self,
        ids: Iterator[int],
        voice: str,
        policy: HopPolicy,
        sample_rate: int,
        on_audio: Callable[[np.ndarray], None],
        on_error: Callable[[ServeError], None],
    ) -> None:
        self._ids, self._voice, self._policy, self.rate = ids, voice, policy, sample_rate
        self._on_audio, self._on_error = on_audio, on_error
        self._cutter: ChunkCutter | None = None
        self._stream_id = 0
        self._open = False  # token2wav may hold state of the current stream
        self._pending: deque[Cut] = deque()
        self._waiting_since = 0.0
        self._playback = Playback(sample_rate)
        self.in_flight = False
        self.chunks = 0  # that came back

    @property
    def done(self) -> bool:
        """Whether every chunk so far has come back."""
        return not self._pending and not self.in_flight

    @property
    def waiting(self) -> bool:
        """Whether a chunk could go now; chunks of one stream must not overtake each other."""
        return bool(self._pending) and not self.in_flight

    @property
    def dry_at(self) -> float:
        """When the listener, who plays at once, has heard everything; the moment of waiting before the first sound."""
        return self._playback.dry_at if self._playback.samples else self._waiting_since

    @property
    def has_remote_state(self) -> bool:
        """Whether token2wav may hold state for it."""
        return self._open or self.in_flight

    @property
    def starts_stream(self) -> bool:
        """Whether the waiting chunk is the first of its token2wav stream, which then holds state until its last."""
        return bool(self._pending[0].flag & ChunkFlag.START)

    def rank(self, now: float, bound_s: float) -> Rank:
        """Sort key of the waiting chunk.

        What frees memory, then what has waited for ``bound_s``, then first chunks, then by the time at
        which the listener runs dry.
        """
        if self._pending[0].flag & ChunkFlag.RELEASE:
            return RELEASING, 0.0
        if now - self._waiting_since > bound_s:
            return OVERDUE, self._waiting_since
        return (LATER if self._playback.samples else FIRST), self.dry_at

    def patient(self, now: float, slack_s: float) -> bool:
        """Whether the waiting chunk may wait for more tokens to join it, because its listener has enough to hear."""
        last, policy = self._pending[-1], self._policy
        if not self._playback.samples or last.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE):
            return False
        joins = policy.block and last.end % policy.block == 0 and sum(cut.hop for cut in self._pending) < policy.most
        return bool(joins) and self.dry_at - now > slack_s

    def push(self, tokens: Sequence[int]) -> None:
        """Takes speech tokens of the current span."""
        if not tokens:
            return
        if self._cutter is None:
            self._cutter = ChunkCutter(self._policy)
        self._queue(self._cutter.push(tokens))

    def end_span(self) -> None:
        """The span is complete: its tail becomes the last chunk."""
        if self._cutter is not None:
            self._queue(self._cutter.finish())
            self._cutter = None

    def cancel(self) -> None:
        """Drops what is queued and has token2wav drop its state."""
        self._pending.clear()
        self._cutter = None
        self._on_audio = self._on_error = _ignore
        if self._open:
            self._queue([Cut((), ChunkFlag.RELEASE, 0, 0)])

    def next_chunk(self) -> SpeechChunk:
        """The next chunk, which is then in flight, and what may be joined to it."""
        cut = take_joined(self._pending, self._policy)
        self.in_flight = True
        self._waiting_since = time.monotonic()  # of what is left
        self._open = not cut.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE)
        if cut.flag & ChunkFlag.START:
            self._stream_id = next(self._ids)
        return SpeechChunk(self._stream_id, cut.flag, self._voice, cut.tokens)

    def deliver(self, samples: np.ndarray) -> float:
        """The chunk in flight came back; returns the seconds of silence that its listener heard before it."""
        self.in_flight = False
        self.chunks += 1
        self._on_audio(samples)
        return self._playback.play(time.monotonic(), len(samples))

    def fail(self, error: ServeError) -> None:
        """The chunk in flight, and with it the sound, is lost.

        One of the two stages may still hold state, so a release follows, whether or not ``cancel`` came while the
        chunk was in flight, and again while releases fail; a stage that holds nothing takes one for nothing.
        """
        self.in_flight, self._open = False, True
        self._pending.clear()
        self._on_error(error)
        self.cancel()

    def _queue(self, cuts: Sequence[Cut]) -> None:
        if cuts and not self._pending:
            self._waiting_since = time.monotonic()
        self._pending += cuts


def stream_ids() -> Iterator[int]:
    """Ids that a restarted server does not repeat, so that state of a dead one is never taken for its own."""
    return itertools.count(time.time_ns() // 1000 << 10)


def _ignore(_: object) -> None:
    """Takes what comes back for a cancelled answer."""
