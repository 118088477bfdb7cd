"""Encoder calls of all requests: those that come while a call runs go together in the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from runtime.serving.stages import Stages

Clips = Sequence[np.ndarray]


class EncodeQueue:
    """One encoder call at a time, in order of arrival. Lives in the asyncio thread.

    Args:
        stages: where the encoder is.
        max_samples: most samples of one call; a longer request goes alone.
        gather_s: the first call after a pause waits so long for company.
    """

    def __init__(self, stages: Stages, max_samples: int, gather_s: float) -> None:
        self._stages, self._max_samples, self._gather_s = stages, max_samples, gather_s
        self._waiting: list[tuple[Clips, asyncio.Future[list[np.ndarray]]]] = []
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
            batch = self._take()
            try:
                rows = await self._stages.encode([clip for clips, _ in batch for clip in clips])
            except Exception as error:  # handed to every request of the call
                for _, result in batch:
                    result.set_exception(error)
                continue
            for clips, result in batch:
                result.set_result(rows[: len(clips)])
                rows = rows[len(clips) :]
        self._worker = None

    def _take(self) -> list[tuple[Clips, asyncio.Future[list[np.ndarray]]]]:
        count, samples = 0, 0
        for clips, _ in self._waiting:
            samples += sum(map(len, clips))
            if count and samples > self._max_samples:
                break
            count += 1
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        return batch
