"""Batches of chunks over the sounds of all answers. Lives in the asyncio thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from runtime.contracts import ChunkFlag
from runtime.errors import ServeError
from runtime.options import Token2WavOptions
from runtime.serving.metrics import Metrics
from runtime.serving.sound import Sound
from runtime.serving.stages import Speaker, SpeechChunk

RELEASE_RETRY_S = 0.5  # after a release that failed: what it lacked, such as shared memory, may take a while


class SoundQueue:
    """Batches over all sounds: whenever a call is free, the most urgent waiting chunks go together.

    Nothing waits for a batch to fill, but a sound waits to begin while token2wav holds as many as it can. While a
    call runs, a stream whose listener has plenty to hear lets its next chunks gather: under load chunks grow, and
    calls get fewer.

    Args:
        stages: where calls go.
        options: ``max_streams``, ``max_batch``, ``calls_in_flight``, ``max_wait_s``, ``slack_s``.
        metrics: told of calls, sound and silence.
    """

    def __init__(self, stages: Speaker, options: Token2WavOptions, metrics: Metrics | None = None) -> None:
        self._stages, self._options, self._running = stages, options, 0
        self._metrics = metrics or Metrics()
        self._ready: list[Sound] = []
        self._holding: set[Sound] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, sound: Sound) -> None:
        """Call whenever the sound may have a chunk to send."""
        if sound.waiting and sound not in self._ready:
            self._ready.append(sound)
        self._dispatch()

    def _dispatch(self) -> None:
        while self._running < self._options.calls_in_flight and (batch := self._next_batch()):
            self._running += 1
            # Taken now: until the task runs, the sounds may be offered again.
            chunks = [sound.next_chunk() for sound in batch]
            self._holding.update(batch)
            task = asyncio.get_running_loop().create_task(self._call(batch, chunks))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[Sound]:
        now, options = time.monotonic(), self._options
        self._ready = [sound for sound in self._ready if sound.waiting]
        due = [sound for sound in self._ready if not (self._running and sound.patient(now, options.slack_s))]
        batch = self._that_fit(sorted(due, key=lambda sound: sound.rank(now, options.max_wait_s)))[: options.max_batch]
        self._ready = [sound for sound in self._ready if sound not in batch]
        return batch

    def _that_fit(self, sounds: Sequence[Sound]) -> list[Sound]:
        """Those that go on, and as many of those that begin as token2wav has room for."""
        room = self._options.max_streams - len(self._holding)
        fresh = [sound for sound in sounds if sound.starts_stream and sound not in self._holding]
        late = set(fresh[max(0, room) :])
        return [sound for sound in sounds if sound not in late]

    async def _call(self, batch: list[Sound], chunks: list[SpeechChunk]) -> None:
        results: Sequence[np.ndarray | ServeError]
        began = time.monotonic()
        try:
            results = await self._stages.speak(chunks)
            if made := sum(bool(chunk.tokens) for chunk in chunks):  # the rest only drops state
                self._metrics.spoke(time.monotonic() - began, made)
        except ServeError as error:
            results = [error] * len(batch)
        self._running -= 1
        for sound, chunk, result in zip(batch, chunks, results, strict=True):
            self._came_back(sound, chunk, result)
        self._dispatch()

    def _came_back(self, sound: Sound, chunk: SpeechChunk, result: np.ndarray | ServeError) -> None:
        if isinstance(result, ServeError):
            sound.fail(result)
            if chunk.flag & ChunkFlag.RELEASE:  # again, but not at once and for ever
                asyncio.get_running_loop().call_later(RELEASE_RETRY_S, self.offer, sound)
                return
        else:
            self._metrics.sound(len(result) / sound.rate, sound.deliver(result))
        if not sound.has_remote_state:
            self._holding.discard(sound)
        self.offer(sound)
