"""Bounds and order of the queues before the stages: the encoder's, and token2wav's streams."""

import asyncio
import itertools
import time

import numpy as np
import pytest

from client.protocol.requests import Priority
from runtime.contracts import ChunkFlag
from runtime.errors import Overloaded
from runtime.serving.encode_queue import EncodeQueue
from runtime.serving.sound import Sound
from runtime.serving.sound_queue import SoundQueue
from runtime.token2wav.hops import HopPolicy
from runtime.token2wav.options import Token2WavOptions

ROOM = 3


class Stages:
    """Remembers what it was given; counts the streams that it holds, as the stage models do.

    ``refusal``: what every call of ``speak`` meets before it changes anything.
    """

    def __init__(self):
        self.clips, self.held, self.most, self.calls, self.refusal = [], set(), 0, 0, None
        self.gate = asyncio.Event()

    async def speak(self, chunks):
        self.calls += 1
        if (refusal := self.refusal) is not None:
            await asyncio.sleep(0)
            raise refusal
        self.held.update(chunk.stream_id for chunk in chunks)
        self.most = max(self.most, len(self.held))
        await asyncio.sleep(0)
        self.held -= {c.stream_id for c in chunks if c.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE)}
        return [np.zeros(len(chunk.tokens), np.float32) for chunk in chunks]

    async def encode(self, clips):
        await self.gate.wait()
        self.clips.append([int(clip[0]) for clip in clips])
        return clips


async def settle():
    for _ in range(300):
        await asyncio.sleep(0)


async def until(made):
    async with asyncio.timeout(30):
        while not made():
            await asyncio.sleep(0.005)


def test_token2wav_never_holds_more_streams_than_it_can_and_all_are_heard():
    async def run():
        stages, ids, heard = Stages(), itertools.count(), []
        queue = SoundQueue(stages, Token2WavOptions(max_streams=ROOM, max_batch=8, calls_in_flight=2))
        sounds = [
            Sound(ids, "voice", HopPolicy((5,), 3), 24_000, lambda samples, i=i: heard.append(i), heard.append)
            for i in range(8)
        ]
        for sound in sounds:  # each begins, and nobody ends
            sound.push([0] * 12)
            queue.offer(sound)
        await settle()
        assert stages.most == ROOM and set(heard) == {0, 1, 2}
        sounds[0].cancel()  # one goes, another begins
        queue.offer(sounds[0])
        await settle()
        assert set(heard) == {0, 1, 2, 3}
        for sound in sounds[1:]:
            sound.end_span()
            queue.offer(sound)
            await settle()
        assert set(heard) == set(range(8)) and stages.most == ROOM and not stages.held

    asyncio.run(run())


@pytest.mark.slow
@pytest.mark.parametrize("forgotten", [False, True])
def test_a_release_that_fails_is_sent_again_until_it_succeeds(monkeypatch, forgotten):
    """Else the stages would hold the stream for ever; ``forgotten``: its session offers the release, as it does."""
    pause_s = 0.5
    monkeypatch.setattr("runtime.serving.sound_queue.RELEASE_RETRY_S", pause_s)

    async def run():
        stages, ids, errors, heard = Stages(), itertools.count(), [], []

        def lost(error):
            errors.append(error)
            if forgotten:
                sound.cancel()
                queue.offer(sound)

        queue = SoundQueue(stages, Token2WavOptions(max_streams=1, max_batch=2, calls_in_flight=2))
        sound = Sound(ids, "voice", HopPolicy((5,), 3), 24_000, lambda samples: None, lost)
        waits = Sound(ids, "voice", HopPolicy((5,), 3), 24_000, heard.append, errors.append)
        sound.push([0] * 8)
        queue.offer(sound)
        await settle()
        assert stages.held == {0}
        stages.refusal, began = Overloaded("token2wav", "shared memory is full", "retry"), time.monotonic()
        sound.push([0] * 5)
        queue.offer(sound)
        waits.push([0] * 8)
        queue.offer(waits)
        await settle()
        assert errors == [stages.refusal] and stages.calls >= 3, "two chunks and one release"
        await until(lambda: stages.calls >= 5)
        assert stages.calls <= 3 + (time.monotonic() - began) / pause_s, "again, with pauses"
        assert stages.held == {0} and not heard, "nobody takes its place"
        stages.refusal = None
        await until(lambda: stages.held == {1} and len(heard) == 1)
        waits.end_span()
        queue.offer(waits)
        await settle()
        calls = stages.calls
        await asyncio.sleep(1.5 * pause_s)
        assert not stages.held and not queue._holding and stages.calls == calls

    asyncio.run(run())


def test_the_encoder_takes_the_higher_class_first_and_drops_who_was_sent_away():
    async def run():
        stages = Stages()
        queue = EncodeQueue(stages, max_samples=2, gather_s=0.0)
        low, gone, lower, high = (
            queue.encode([np.full(1, i)], priority)
            for i, priority in enumerate((Priority.BATCH, Priority.BATCH, Priority.BATCH, Priority.INTERACTIVE))
        )
        gone.set_exception(Overloaded("displaced", "x", retry_after_s=1.0))
        stages.gate.set()
        await asyncio.gather(low, lower, high)
        assert stages.clips == [[3, 0], [2]]
        assert isinstance(gone.exception(), Overloaded)

    asyncio.run(run())


def test_a_result_for_somebody_who_left_meanwhile_harms_nobody():
    async def run():
        stages = Stages()
        queue = EncodeQueue(stages, max_samples=10, gather_s=0.0)
        left, stays = queue.encode([np.zeros(1)]), queue.encode([np.ones(1)])
        await asyncio.sleep(0.01)  # the call runs
        left.set_exception(Overloaded("wait", "x", retry_after_s=1.0))
        stages.gate.set()
        assert (await stays)[0] == 1 and isinstance(left.exception(), Overloaded)

    asyncio.run(run())
