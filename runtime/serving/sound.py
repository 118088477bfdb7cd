"""The sound of answers: chunks of speech tokens out to token2wav, samples back, in order.

``Sound`` belongs to one answer; ``Dispatcher`` forms the batches of all answers. Both live in the
asyncio thread. Knows deadlines and batches; the arithmetic is in the stage models.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault, ServeError
from runtime.serving.stages import SpeechChunk, Stages
from runtime.token2wav.hops import ChunkCutter, HopPolicy


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
        self._ids, self._voice, self._policy, self._rate = ids, voice, policy, sample_rate
        self._on_audio, self._on_error = on_audio, on_error
        self._cutter: ChunkCutter | None = None
        self._stream_id = 0
        self._open = False  # token2wav may hold state of the current stream
        self._releasing = False
        self._started = 0.0
        self._samples = 0
        self.pending: deque[SpeechChunk] = deque()
        self.in_flight = False

    @property
    def done(self) -> bool:
        """Whether every chunk so far has come back."""
        return not self.pending and not self.in_flight

    @property
    def urgency(self) -> tuple[bool, float]:
        """Sort key: first chunks before later ones, then by the time at which the listener runs dry."""
        return bool(self._samples), self._started + self._samples / self._rate

    def push(self, tokens: Sequence[int]) -> None:
        """Takes speech tokens of the current span."""
        if not tokens:
            return
        if self._cutter is None:
            self._cutter = ChunkCutter(self._policy)
            self._stream_id = next(self._ids)
        for chunk in self._cutter.push(tokens):
            self._queue(chunk.flag, chunk.tokens)

    def end_span(self) -> None:
        """The span is complete: its tail becomes the last chunk."""
        if self._cutter is not None:
            for chunk in self._cutter.finish():
                self._queue(chunk.flag, chunk.tokens)
            self._cutter = None

    def cancel(self) -> None:
        """Drops what is queued and has token2wav drop its state."""
        self.pending.clear()
        self._cutter = None
        self._on_audio = self._on_error = _ignore
        if self._open:
            self._queue(ChunkFlag.RELEASE, ())

    def take(self) -> SpeechChunk:
        """The next chunk, which is then in flight."""
        assert not self.in_flight, "chunks of one stream must not overtake each other"
        chunk = self.pending.popleft()
        self.in_flight = True
        self._releasing = bool(chunk.flag & ChunkFlag.RELEASE)
        self._open = not chunk.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE)
        return chunk

    def give(self, samples: np.ndarray) -> None:
        """The chunk in flight came back."""
        self.in_flight = False
        if not self._samples:
            self._started = time.monotonic()
        self._samples += len(samples)
        self._on_audio(samples)

    def fail(self, error: ServeError) -> None:
        """The chunk in flight, and with it the sound, is lost.

        One of the two stages may still hold state, so the stream stays open until ``cancel`` releases
        it; only a release that fails is not tried again.
        """
        self.in_flight, self._open = False, not self._releasing
        self.pending.clear()
        self._on_error(error)

    def _queue(self, flag: ChunkFlag, tokens: Sequence[int]) -> None:
        self.pending.append(SpeechChunk(self._stream_id, flag, self._voice, tuple(tokens)))


def _ignore(_: object) -> None:
    """Takes what comes back for a cancelled answer."""


class Dispatcher:
    """Batches over all sounds: whenever a call is free, the most urgent waiting chunks go together.

    Nothing waits for a batch to fill, so the bound on waiting is one call per place ahead in the order.
    """

    def __init__(self, stages: Stages, max_batch: int, calls_in_flight: int) -> None:
        self._stages, self._max_batch, self._free_calls = stages, max_batch, calls_in_flight
        self._ready: list[Sound] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, sound: Sound) -> None:
        """Call whenever the sound may have a chunk to send."""
        if sound.pending and not sound.in_flight and sound not in self._ready:
            self._ready.append(sound)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._ready and self._free_calls:
            self._ready = sorted((s for s in self._ready if s.pending), key=lambda s: s.urgency)
            batch, self._ready = self._ready[: self._max_batch], self._ready[self._max_batch :]
            if batch:
                self._free_calls -= 1
                # Taken now: until the task runs, the sounds may be offered again.
                chunks = [sound.take() for sound in batch]
                task = asyncio.get_running_loop().create_task(self._call(batch, chunks))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _call(self, batch: list[Sound], chunks: list[SpeechChunk]) -> None:
        results: Sequence[np.ndarray | ServeError | None]
        try:
            results = await self._stages.speak(chunks)
        except ServeError as error:
            results = [error] * len(batch)
        self._free_calls += 1
        for sound, result in zip(batch, results, strict=True):
            if isinstance(result, ServeError):
                sound.fail(result)
            elif result is None:
                sound.fail(EngineFault("token2wav", "the state of this stream was lost", "send the request again"))
            else:
                sound.give(result)
            self.offer(sound)
        self._dispatch()
