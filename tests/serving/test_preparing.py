"""Requests that are being prepared, in process: they cost others nothing, and leave when their clients do."""

import asyncio

import numpy as np
import pytest
from test_ends import Ends, in_process, send, until

from runtime.headers import KEY_HEADER

NOTICED_S = 0.5  # ten polls


class Encoder:
    """Stages whose encoder waits for a gate and remembers the lengths of its clips; nobody speaks."""

    def __init__(self):
        self.gate, self.clips = asyncio.Event(), []

    async def encode(self, clips):
        self.clips.append([len(clip) for clip in clips])
        await self.gate.wait()
        return [np.zeros((1, 1), np.float32) for _ in clips]

    async def speak(self, chunks):
        await asyncio.sleep(60)


@pytest.fixture
def served(built, tmp_path):
    stages = Encoder()
    with in_process(built, tmp_path, stages) as service:
        yield service, stages


def silence(samples):
    return {"audio": np.zeros(samples, np.float32)}


def test_who_leaves_while_the_encoder_works_holds_nothing(served):
    service, stages = served
    encoded, queued, later = Ends(), Ends(), Ends()
    send(service, encoded, silence(16_000), {KEY_HEADER: "one"})
    until(lambda: stages.clips)
    send(service, queued, silence(8_000), {KEY_HEADER: "one"})
    until(lambda: len(service._intake._encoder._waiting))
    encoded.gone = queued.gone = True
    until(lambda: not service.live and not service.door.keys.live, NOTICED_S)
    assert encoded.errors == queued.errors == [None] and not service._tasks
    assert service.metrics.take().counts["cancels_total", ""] == 2
    send(service, later, silence(4_000))
    until(lambda: len(service._tasks) == 1)
    service._aio.call_soon_threadsafe(stages.gate.set)
    until(lambda: len(stages.clips) > 1)
    assert stages.clips == [[16_000], [4_000]], "the queued clip is not encoded"
