"""Encoder calls of all requests: those that come while a call runs go together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from client.protocol.requests import DEFAULT_PRIORITY, Priority
from runtime.scheduling.waiting import WaitingQueue
from runtime.serving.stage_guard import StageHangs
from runtime.serving.stages import Stages

Clips = Sequence[np.ndarray]
Encoded = asyncio.Future[list[np.ndarray]]


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """The clips of one request, and where their embeddings go."""

    clips: Clips
    result: Encoded


class EncodeQueue:
    """One encoder call at a time, in the order of ``runtime.scheduling.waiting``. Lives in the asyncio thread.

    Only requests that were admitted come here, each once: admission is the bound of this queue.

    Args:
        stages: where the encoder is.
        max_samples: most samples of one call; a longer request goes alone.
        gather_s: the first call after a pause waits so long for company.
    """

    def __init__(self, stages: Stages, max_samples: int, gather_s: float) -> None:
        self._stages, self._max_samples, self._gather_s = stages, max_samples, gather_s
        self._waiting: WaitingQueue[Job] = WaitingQueue()
        self._worker: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Requests whose clips are in no call yet, those that were cancelled included."""
        return len(self._waiting)

    def encode(self, clips: Clips, priority: Priority = DEFAULT_PRIORITY) -> Encoded:
        """Clips of one request to [placeholders, hidden] each; raises what the stage raises.

        Cancelling the future drops its clips, or their result when they are being encoded.
        """
        loop = asyncio.get_running_loop()
        result: Encoded = loop.create_future()
        self._waiting.push(Job(clips, result), priority)
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return result

    async def _work(self) -> None:
        await asyncio.sleep(self._gather_s)
        while batch := self._take():
            await self._call(batch)
        self._worker = None

    async def _call(self, batch: list[Job]) -> None:
        """One call for all; when it fails one for each, so that only the request at fault ends."""
        try:
            rows = await self._stages.encode([clip for job in batch for clip in job.clips])
        except Exception as error:  # handed to the request
            if len(batch) > 1 and not isinstance(error, StageHangs):
                for job in batch:
                    await self._call([job])
                return
            for job in batch:
                if not job.result.done():
                    job.result.set_exception(error)
            return
        for job in batch:
            if not job.result.done():  # its request was ended meanwhile
                job.result.set_result(rows[: len(job.clips)])
            rows = rows[len(job.clips) :]

    def _take(self) -> list[Job]:
        batch: list[Job] = []
        samples = 0
        while self._waiting:
            job = self._waiting.head()
            if job.result.done():
                self._waiting.pop()
                continue
            samples += sum(map(len, job.clips))
            if batch and samples > self._max_samples:
                break
            batch.append(self._waiting.pop())
        return batch
