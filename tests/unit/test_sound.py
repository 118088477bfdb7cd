"""Chunks of many answers through token2wav: order, batches, cancels and failures, with stages that only count."""

import asyncio
import itertools

import numpy as np
import pytest

from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.serving.encoding import EncodeQueue
from runtime.serving.sound import Dispatcher, Sound
from runtime.token2wav.hops import HopPolicy

TOKEN = 960
POLICY = HopPolicy((15, 10, 25), 3)


class CountingStages:
    """Gives 960 samples per token, each with the token's value, after a turn of the event loop."""

    def __init__(self):
        self.calls, self.held, self.fail = [], set(), None

    async def speak(self, chunks):
        self.calls.append([(c.stream_id, c.flag, len(c.tokens)) for c in chunks])
        for chunk in chunks:
            assert (chunk.stream_id in self.held) != bool(chunk.flag & ChunkFlag.START)
            (self.held.discard if chunk.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE) else self.held.add)(
                chunk.stream_id
            )
        await asyncio.sleep(0)
        if self.fail and not chunks[0].flag & ChunkFlag.RELEASE:
            self.held.update(c.stream_id for c in chunks)  # one stage was done, the other was not
            raise self.fail
        return [np.repeat(np.array(chunk.tokens, np.float32), TOKEN) for chunk in chunks]

    async def encode(self, clips):
        self.calls.append(len(clips))
        await asyncio.sleep(0)
        if self.fail:
            raise self.fail
        return [clip[:1] for clip in clips]


class Listener:
    def __init__(self, ids=None):
        self.audio, self.errors = [], []
        self.sound = Sound(ids or itertools.count(), "voice", POLICY, 24_000, self.audio.append, self.errors.append)

    @property
    def tokens(self):
        return np.concatenate([np.zeros(0), *self.audio])[::TOKEN].astype(int).tolist()


async def settle():
    for _ in range(200):
        await asyncio.sleep(0)


@pytest.mark.parametrize("calls_in_flight", [1, 2, 5])
def test_every_token_comes_back_once_and_in_order(calls_in_flight):
    async def run():
        stages, ids = CountingStages(), itertools.count()
        dispatcher = Dispatcher(stages, 4, calls_in_flight)
        listeners = [Listener(ids) for _ in range(6)]
        for begin in range(0, 100, 5):
            for n, listener in enumerate(listeners):
                listener.sound.push(range(begin + n, begin + n + 5))
                if begin == 45:
                    listener.sound.end_span()  # a second span follows: another token2wav stream
                dispatcher.offer(listener.sound)
                dispatcher.offer(listener.sound)  # offering twice must not let chunks overtake each other
            await asyncio.sleep(0)
        for listener in listeners:
            listener.sound.end_span()
            dispatcher.offer(listener.sound)
        await settle()
        for n, listener in enumerate(listeners):
            assert listener.sound.done and not listener.errors
            assert listener.tokens == list(range(n, n + 100))
        assert not stages.held and max(map(len, stages.calls)) <= 4
        assert any(len(call) > 1 for call in stages.calls)

    asyncio.run(run())


def test_first_chunks_go_before_later_ones():
    async def run():
        stages, ids = CountingStages(), itertools.count()
        dispatcher = Dispatcher(stages, 1, 1)
        old, new = Listener(ids), Listener(ids)
        old.sound.push(range(18))
        dispatcher.offer(old.sound)
        await settle()
        blocker = Listener(ids)
        blocker.sound.push(range(18))
        dispatcher.offer(blocker.sound)  # takes the only call
        old.sound.push(range(18, 28))
        dispatcher.offer(old.sound)
        new.sound.push(range(18))
        dispatcher.offer(new.sound)
        await settle()
        assert [call[0][0] for call in stages.calls[2:]] == [2, 0], "the new stream overtook the waiting later chunk"

    asyncio.run(run())


@pytest.mark.parametrize("when", ["queued", "in flight", "between chunks"])
def test_cancel_releases_the_state(when):
    async def run():
        stages = CountingStages()
        dispatcher, listener = Dispatcher(stages, 4, 1), Listener()
        listener.sound.push(range(18))
        if when != "queued":
            dispatcher.offer(listener.sound)
        if when == "between chunks":
            await settle()
        listener.sound.cancel()
        dispatcher.offer(listener.sound)
        await settle()
        assert not stages.held and listener.sound.done
        assert len(listener.audio) == (when == "between chunks")

    asyncio.run(run())


def test_a_failed_call_ends_its_sounds_and_releases_their_state():
    async def run():
        stages = CountingStages()
        dispatcher, listener = Dispatcher(stages, 4, 1), Listener()
        stages.fail = EngineFault("token2wav", "broke", "retry")
        listener.sound.push(range(60))
        dispatcher.offer(listener.sound)
        await settle()
        assert listener.errors == [stages.fail] and not listener.audio
        listener.sound.cancel()  # what the session does on the error
        dispatcher.offer(listener.sound)
        await settle()
        assert not stages.held and listener.sound.done

    asyncio.run(run())


def test_encoder_calls_are_shared_and_bounded():
    async def run():
        stages = CountingStages()
        queue = EncodeQueue(stages, max_samples=100, gather_s=0.0)
        clips = [[np.full(40, n, np.float32)] for n in range(5)] + [[np.full(500, 9, np.float32)] * 2]
        results = await asyncio.gather(*(queue.encode(clip) for clip in clips))
        assert [[row[0] for row in rows] for rows in results] == [[0], [1], [2], [3], [4], [9, 9]]
        assert stages.calls == [2, 2, 1, 2]
        stages.fail = EngineFault("speech_encoder", "broke", "retry")
        with pytest.raises(EngineFault):
            await queue.encode(clips[0])
        stages.fail = None
        assert len(await queue.encode(clips[0])) == 1

    asyncio.run(run())
