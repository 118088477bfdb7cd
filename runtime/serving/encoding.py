"""Encoder calls of all requests: those that come while a call runs go together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from runtime.contracts import AUDIO_ENCODER
from runtime.errors import EngineFault
from runtime.serving.guarded import StageHangs
from runtime.serving.stages import Stages

Clips = Sequence[np.ndarray]
Waiting = tuple[Clips, asyncio.Future[list[np.ndarray]]]


class EncodeQueue:
    """One encoder call at a time, in order of arrival. Lives in the asyncio thread.

    Args:
        stages: where the encoder is.
        max_samples: most samples of one call; a longer request goes alone.
        gather_s: the first call after a pause waits so long for company.
    """

    def __init__(self, stages: Stages, max_samples: int, gather_s: float) -> None:
        self._stages, self._max_samples, self._gather_s = stages, max_samples, gather_s
        self._waiting: list[Waiting] = []
        self._worker: asyncio.Task[None] | None = None

    async def encode(self, clips: Clips) -> list[np.ndarray]:
        """Clips of one request to [placeholders, hidden] each. Raises what the stage raises."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[np.ndarray]] = loop.create_future()
        self._waiting.append((clips, result))
        if self._worker is None:
            self._worker = loop.create_task(self._work())
        return await result

    async def _work(self) -> None:
        await asyncio.sleep(self._gather_s)
        while self._waiting:
            await self._call(self._take())
        self._worker = None

    async def _call(self, batch: list[Waiting]) -> None:
        """One call for all; when it fails one for each, so that only the request at fault ends."""
        try:
            rows = await self._stages.encode([clip for clips, _ in batch for clip in clips])
            if not all(np.isfinite(row).all() for row in rows):
                raise EngineFault(AUDIO_ENCODER.name, "gave numbers that are not finite", "send the request again")
        except Exception as error:  # handed to the request
            if len(batch) > 1 and not isinstance(error, StageHangs):
                for alone in batch:
                    await self._call([alone])
                return
            for _, result in batch:
                if not result.done():
                    result.set_exception(error)
            return
        for clips, result in batch:
            if not result.done():  # its request was ended meanwhile
                result.set_result(rows[: len(clips)])
            rows = rows[len(clips) :]

    def _take(self) -> list[Waiting]:
        count, samples = 0, 0
        for clips, _ in self._waiting:
            samples += sum(map(len, clips))
            if count and samples > self._max_samples:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
