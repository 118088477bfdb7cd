"""Scheduling rules with no model at all."""

import numpy as np
import pytest

from client.protocol.requests import Priority
from runtime.engines.base import EngineShape
from runtime.engines.kv_cache import KvCache
from runtime.errors import InvalidRequest
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.params import AnswerParams
from runtime.scheduling.caches import Cache, CacheSpec
from runtime.scheduling.scheduler import Limits, Scheduler
from runtime.scheduling.stream import Prompt, Stream

TEXT = TextIds(audio=1, audio_bos=2, audio_eos=3, stop=(4,))
SPEECH = SpeechIds(codebook_size=10, bos=7, eos=8, pad=9, group_size=5)


def shape(blocks, factor=1):
    return EngineShape(4, 1, 1, 2, 4, 64, 256 * factor, 8, blocks)


def caches_of(backbone, speech):
    """One position a step, and five of them for streams that speak."""
    return Cache(CacheSpec("backbone", "backbone"), backbone), Cache(
        CacheSpec("speech", "speech head", 5, True), speech
    )


def scheduler(blocks=64, chunk=16, streams=4):
    caches = KvCache(shape(blocks)), KvCache(shape(blocks * 5, 5))
    return Scheduler(Limits(streams, chunk, 256), caches_of(*caches))


def stream(length, max_tokens=8, mode="s2s"):
    prompt = Prompt(np.zeros(length, np.int64), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    return Stream(0, prompt, Answer(TEXT, SPEECH, AnswerParams(mode, max_tokens, mode == "s2s")))


def chunks(plan):
    return [(chunk.stream, chunk.begin, chunk.length, chunk.last) for chunk in plan.contexts]


@pytest.mark.parametrize(("prompt", "room"), [(0, 256), (200, 56), (255, 1), (256, 1), (1000, 1)])
def test_room_behind_a_prompt(prompt, room):
    assert scheduler().room(prompt) == room


def test_nothing_live_gives_no_plan():
    assert scheduler().plan() is None


def test_a_prompt_is_prefilled_in_chunks_and_then_generates():
    s, one = scheduler(), stream(40)
    s.add(one)
    assert chunks(s.plan()) == [(one, 0, 16, False)]
    assert chunks(s.plan()) == [(one, 16, 16, False)]
    plan = s.plan()
    assert chunks(plan) == [(one, 32, 8, True)] and plan.deciding == [one]
    plan = s.plan()
    assert plan.generations == (one,) and not plan.contexts and one.position == 41


def test_running_streams_wait_for_at_most_one_chunk_however_many_join():
    s, running = scheduler(blocks=256), stream(4, max_tokens=200)
    s.add(running)
    s.plan()
    for _ in range(3):
        s.add(stream(155))  # a 31 s clip each
    steps = 0
    while s.prefilling or s.waiting:
        plan = s.plan()
        assert plan.generations[0] is running, "every step makes a frame of the running stream"
        assert sum(chunk.length for chunk in plan.contexts) <= 16
        steps += 1
    assert steps == -(-3 * 155 // 16)


def test_short_prompts_share_a_chunk():
    s, first, second = scheduler(), stream(5), stream(6)
    s.add(first)
    s.add(second)
    assert chunks(s.plan()) == [(first, 0, 5, True), (second, 0, 6, True)]


def test_slots_bound_the_live_streams_and_are_reused():
    s, streams = scheduler(streams=2), [stream(4) for _ in range(3)]
    for one in streams:
        s.add(one)
    s.plan()
    assert s.live == 2 and list(s.waiting) == [streams[2]]
    s.remove(streams[0])
    s.plan()
    assert s.live == 2 and streams[2].slot >= 0 and streams[0].slot == -1


def test_blocks_of_both_caches_bound_admission_in_order():
    s = scheduler(blocks=4)  # 32 positions
    first, large, small = stream(4, 12), stream(4, 28), stream(2, 2)
    for one in (first, large, small):
        s.add(one)
    s.plan()
    assert s.live == 1 and list(s.waiting) == [large, small], "a small request does not overtake"
    s.remove(first)
    s.plan()
    assert large.slot >= 0 and list(s.waiting) == [small]


def test_text_only_streams_take_no_speech_blocks():
    s = scheduler()
    free = s.free_blocks
    s.add(stream(8, 8, "s2t"))
    s.plan()
    assert s.free_blocks == (free[0] - 2, free[1])


def test_removal_frees_everything_wherever_the_stream_is():
    s = scheduler(streams=2)
    free = s.free_blocks
    running, prefilling, waiting = stream(4), stream(100), stream(4)
    for one in (running, prefilling, waiting):
        s.add(one)
    s.plan()
    for one in (waiting, prefilling, running, running):
        s.remove(one)
    assert s.free_blocks == free and s.live == 0 and not s.waiting and s.plan() is None


def test_a_stream_that_can_never_fit_is_refused():
    with pytest.raises(InvalidRequest, match=r"max_tokens: .*256 positions"):
        scheduler().check_fits(stream(200, 100))
    with pytest.raises(InvalidRequest, match=r"need 3 KV blocks of the backbone, more than the 2 "):
        scheduler(blocks=2).check_fits(stream(10, 10))
    tight = Scheduler(Limits(4, 16, 256), caches_of(KvCache(shape(64)), KvCache(shape(12, 5))))
    with pytest.raises(InvalidRequest, match=r"need 13 KV blocks of the speech head, more than the 12 "):
        tight.check_fits(stream(10, 10))
    tight.check_fits(stream(10, 10, "s2t"))


def test_the_lower_class_is_admitted_only_when_no_higher_one_waits():
    s = scheduler(streams=1)
    low, first, second = stream(4), stream(4), stream(4)
    low.priority = Priority.BATCH
    for one in (low, first, second):
        s.add(one)
    for expected in (first, second, low):
        s.plan()
        assert expected.slot >= 0 and s.live == 1
        s.remove(expected)


def test_streams_are_told_of_their_slot():
    s, one, heard = scheduler(), stream(4), []
    one.on_slot = heard.append
    s.add(one)
    assert heard == [] and s.free == (4, *s.free_blocks)
    s.plan()
    assert heard == [True] and s.free[0] == 3
    s.remove(one)
    s.remove(one)
    assert heard == [True, False]


def test_running_streams_well_ahead_stand_back_for_joining_ones():
    s, ahead, behind = scheduler(), stream(4, 100), stream(4, 100)
    for one in (ahead, behind):
        s.add(one)
    s.plan()
    ahead.started = behind.started = 0.0
    ahead.answer.forwards, behind.answer.forwards = 20, 10  # 4 s and 2 s of speech
    assert s.plan(now=1.0).generations == (ahead, behind), "nobody joins"
    s.add(stream(40))
    assert s.plan(now=1.0).generations == (behind,), "1 s left is less than the lead, 3 s are more"
    assert s.plan(now=2.6).generations == (ahead, behind), "nobody falls behind for it"
