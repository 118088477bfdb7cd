"""Chunks of many answers through token2wav: order, batches, cancels and failures, with stages that only count."""

import asyncio
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.serving.encode_queue import EncodeQueue
from runtime.serving.sound import Sound
from runtime.serving.sound_queue import SoundQueue
from runtime.token2wav.hops import HopPolicy
from runtime.token2wav.options import Token2WavOptions

TOKEN = 960
POLICY = HopPolicy((15, 10, 25), 3, block=25)


def sounds_of(stages, max_batch=4, calls_in_flight=1, **options):
    return SoundQueue(stages, Token2WavOptions(max_batch=max_batch, calls_in_flight=calls_in_flight, **options))


class CountingStages:
    """Gives 960 samples per token, each with the token's value, after a turn of the event loop."""

    def __init__(self):
        self.calls, self.held, self.fail = [], set(), None
        self.gate = asyncio.Event()
        self.gate.set()

    async def speak(self, chunks):
        self.calls.append([(c.stream_id, c.flag, len(c.tokens)) for c in chunks])
        for chunk in chunks:
            assert (chunk.stream_id in self.held) != bool(chunk.flag & ChunkFlag.START)
            (self.held.discard if chunk.flag & (ChunkFlag.FINAL | ChunkFlag.RELEASE) else self.held.add)(
                chunk.stream_id
            )
        await asyncio.sleep(0)
        await self.gate.wait()
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
        sounds = sounds_of(stages, 4, calls_in_flight)
        listeners = [Listener(ids) for _ in range(6)]
        for begin in range(0, 100, 5):
            for n, listener in enumerate(listeners):
                listener.sound.push(range(begin + n, begin + n + 5))
                if begin == 45:
                    listener.sound.end_span()  # a second span follows: another token2wav stream
                sounds.offer(listener.sound)
                sounds.offer(listener.sound)  # offering twice must not let chunks overtake each other
            await asyncio.sleep(0)
        for listener in listeners:
            listener.sound.end_span()
            sounds.offer(listener.sound)
        await settle()
        for n, listener in enumerate(listeners):
            assert listener.sound.done and not listener.errors
            assert listener.tokens == list(range(n, n + 100))
        assert not stages.held and max(map(len, stages.calls)) <= 4
        assert any(len(call) > 1 for call in stages.calls)

    asyncio.run(run())


async def first_chunk_heard(stages, sounds, listener):
    """The listener has the sound of 15 tokens; its stream goes on at token 18."""
    listener.sound.push(range(18))
    sounds.offer(listener.sound)
    await settle()
    stages.calls.clear()


def test_chunks_that_wait_are_joined_on_block_boundaries_only():
    async def run():
        stages = CountingStages()
        sounds, listener = sounds_of(stages), Listener()
        listener.sound.push(range(18))
        sounds.offer(listener.sound)
        listener.sound.push(range(18, 150))  # while the first is under way
        listener.sound.end_span()
        await settle()
        # Rendered up to 15, 100, 150: the first was cut inside a block, so nothing may join it.
        assert [tokens for [(_, _, tokens)] in stages.calls] == [18, 85, 47]
        assert listener.tokens == list(range(150)) and listener.sound.chunks == 3

    asyncio.run(run())


def test_without_blocks_nothing_is_joined():
    async def run():
        stages = CountingStages()
        sound = Sound(itertools.count(), "v", HopPolicy((25,), 3), 24_000, lambda _: None, lambda _: None)
        sound.push(range(103))
        sounds_of(stages).offer(sound)
        await settle()
        assert [tokens for [(_, _, tokens)] in stages.calls] == [28, 25, 25, 25] and sound.done

    asyncio.run(run())


@pytest.mark.parametrize(("slack_s", "waits"), [(0.1, True), (60.0, False)])
def test_under_load_a_listener_with_plenty_to_hear_waits_for_larger_chunks(monkeypatch, slack_s, waits):
    for room in ("sound", "sound_queue"):  # what is heard stays
        monkeypatch.setattr(f"runtime.serving.{room}.time", SimpleNamespace(monotonic=lambda: 100.0))

    async def run():
        stages, ids = CountingStages(), itertools.count()
        sounds, listener = sounds_of(stages, calls_in_flight=2, slack_s=slack_s), Listener(ids)
        await first_chunk_heard(stages, sounds, listener)  # 0.6 s to hear
        stages.gate.clear()
        other = Listener(ids)
        other.sound.push(range(18))
        sounds.offer(other.sound)
        await settle()
        listener.sound.push(range(18, 53))  # chunks up to 25 and 50; a call is free
        sounds.offer(listener.sound)
        await settle()
        sizes = [size for call in stages.calls for stream, _, size in call if stream == 0]
        assert sizes == ([] if waits else [35])
        listener.sound.push(range(53, 128))
        sounds.offer(listener.sound)
        await settle()
        assert stages.calls[1:] == [[(0, ChunkFlag.CONTINUE, 85 if waits else 35)]], "enough for the largest chunk"
        stages.gate.set()
        await settle()
        assert listener.tokens == list(range(128))

    asyncio.run(run())


def test_a_patient_stream_goes_on_when_nothing_else_runs():
    async def run():
        stages, ids = CountingStages(), itertools.count()
        sounds, listener = sounds_of(stages, calls_in_flight=2, slack_s=0.1), Listener(ids)
        await first_chunk_heard(stages, sounds, listener)
        stages.gate.clear()
        other = Listener(ids)
        other.sound.push(range(18))
        sounds.offer(other.sound)
        listener.sound.push(range(18, 53))
        sounds.offer(listener.sound)
        stages.gate.set()
        await settle()
        assert listener.tokens == list(range(53))

    asyncio.run(run())


def test_what_waited_too_long_goes_before_first_chunks():
    assert asyncio.run(order_after_a_blocked_call(max_wait_s=0.0)) == [0, 2]
    assert asyncio.run(order_after_a_blocked_call(max_wait_s=60.0)) == [2, 0]


def test_a_release_goes_before_everything():
    assert asyncio.run(order_after_a_blocked_call(cancel=True, max_wait_s=60.0)) == [0, 2]


async def order_after_a_blocked_call(cancel=False, **options):
    """A later chunk of stream 0, or its release, and then the first chunk of stream 2 wait for the only call."""
    stages, ids = CountingStages(), itertools.count()
    sounds = sounds_of(stages, max_batch=1, **options)
    old, blocker, new = Listener(ids), Listener(ids), Listener(ids)
    await first_chunk_heard(stages, sounds, old)
    stages.gate.clear()
    blocker.sound.push(range(18))
    sounds.offer(blocker.sound)
    old.sound.push(range(18, 28))
    if cancel:
        old.sound.cancel()
    sounds.offer(old.sound)
    await asyncio.sleep(0.002)
    new.sound.push(range(18))
    sounds.offer(new.sound)
    stages.gate.set()
    await settle()
    return [call[0][0] for call in stages.calls[1:]]


@pytest.mark.parametrize("when", ["queued", "in flight", "between chunks"])
def test_cancel_releases_the_state(when):
    async def run():
        stages = CountingStages()
        sounds, listener = sounds_of(stages), Listener()
        listener.sound.push(range(18))
        if when != "queued":
            sounds.offer(listener.sound)
        if when == "between chunks":
            await settle()
        listener.sound.cancel()
        sounds.offer(listener.sound)
        await settle()
        assert not stages.held and listener.sound.done
        assert len(listener.audio) == (when == "between chunks")

    asyncio.run(run())


@pytest.mark.parametrize("complete", [False, True])
def test_a_chunk_that_fails_after_its_cancel_leaves_no_state(complete):
    """A sound that went on holding its place would keep one of the few for ever."""

    async def run():
        stages = CountingStages()
        sounds, listener = sounds_of(stages, max_streams=1), Listener()
        listener.sound.push(range(18))
        if complete:
            listener.sound.end_span()
        stages.gate.clear()
        sounds.offer(listener.sound)
        await settle()
        listener.sound.cancel()
        sounds.offer(listener.sound)
        stages.fail = EngineFault("token2wav", "broke", "retry")
        stages.gate.set()
        await settle()
        assert not stages.held and listener.sound.done and not listener.sound.has_remote_state
        stages.fail, next_one = None, Listener(itertools.count(5))
        next_one.sound.push(range(18))
        sounds.offer(next_one.sound)
        await settle()
        assert next_one.tokens == list(range(18))

    asyncio.run(run())


def test_a_failed_call_ends_its_sounds_and_releases_their_state():
    async def run():
        stages = CountingStages()
        sounds, listener = sounds_of(stages), Listener()
        stages.fail = EngineFault("token2wav", "broke", "retry")
        listener.sound.push(range(60))
        sounds.offer(listener.sound)
        await settle()
        assert listener.errors == [stages.fail] and not listener.audio
        listener.sound.cancel()  # what the session does on the error
        sounds.offer(listener.sound)
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
