"""Beginnings that prompts share: whose blocks they are, when they are copied, when they go."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engines.base import EngineShape
from runtime.engines.kv_cache import KvCache
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.families.fun_audio_chat.prompt import shared_length
from runtime.params import AnswerParams
from runtime.requests.messages import Message
from runtime.scheduling.caches import Cache, CacheSpec
from runtime.scheduling.scheduler import Limits, Scheduler
from runtime.scheduling.stream import Prompt, Stream

TEXT = TextIds(audio=1, audio_bos=2, audio_eos=3, stop=(4,))
SPEECH_IDS = SpeechIds(codebook_size=10, bos=7, eos=8, pad=9, group_size=5)
TOKENS = 8
BACKBONE, SPEECH = 0, 1


def caches_of(backbone, speech):
    return Cache(CacheSpec("backbone", "backbone"), backbone), Cache(
        CacheSpec("speech", "speech head", 5, True), speech
    )


class Rig:
    """A scheduler and its caches, with what a pool would hold: who wrote last to each position of each block."""

    def __init__(self, blocks=64, chunk=64, slots=4, prefixes=2):
        self.caches = tuple(
            KvCache(EngineShape(4, 1, 1, 2, slots, 64, 256 * factor, TOKENS, blocks * factor)) for factor in (1, 5)
        )
        self.scheduler = Scheduler(Limits(slots, chunk, 256, max_prefixes=prefixes), caches_of(*self.caches))
        self.pools = [{}, {}]

    def step(self):
        """One step: copies, then the rows of all contexts and generations are written."""
        plan = self.scheduler.plan()
        if plan is None:
            return None
        for copy in plan.copies:
            for place in range(TOKENS):
                self.pools[copy.cache][copy.target, place] = self.pools[copy.cache].get((copy.source, place))
        for chunk in plan.contexts:
            self.write(chunk.stream, chunk.begin, chunk.begin + chunk.length)
        for stream in plan.generations:
            self.write(stream, stream.position - 1, stream.position)
        for stream in plan.deciding:
            self.check(stream)
        return plan

    def write(self, stream, begin, end):
        for number, blocks, factor in self.tables(stream):
            for position in range(begin * factor, end * factor):
                # What a row computes depends on all ids up to it; behind the prompt on the stream alone.
                ids = stream.prompt.ids[: position // factor + 1].tobytes()
                author = ids if position // factor < stream.prompt.shared else stream.key
                self.pools[number][blocks[position // TOKENS], position % TOKENS] = author, position

    def tables(self, stream):
        found = [(BACKBONE, self.caches[0].blocks_of(stream.slot), 1)]
        return found + ([(SPEECH, self.caches[1].blocks_of(stream.slot), 5)] if stream.params.speaks else [])

    def check(self, stream):
        """Every position that the stream attends to holds what the stream itself would have computed."""
        for number, blocks, factor in self.tables(stream):
            for position in range(stream.position * factor):
                author, written = self.pools[number][blocks[position // TOKENS], position % TOKENS]
                ids = stream.prompt.ids[: position // factor + 1].tobytes()
                assert written == position
                assert author == (ids if position // factor < stream.prompt.shared else stream.key)


def stream(key, system=20, length=40, shared=12, mode="s2s", max_tokens=8):
    """``system``: which system message; its ids are ``shared`` long."""
    ids = np.concatenate([np.full(shared, 100 + system), np.full(length - shared, 5)]).astype(np.int64)
    prompt = Prompt(ids, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), shared)
    return Stream(key, prompt, Answer(TEXT, SPEECH_IDS, AnswerParams(mode, max_tokens, mode == "s2s")))


def run(rig, *streams):
    for one in streams:
        rig.scheduler.add(one)
        rig.step()


def test_the_second_stream_begins_behind_the_system_message():
    rig, first, second = Rig(), stream(1), stream(2)
    run(rig, first)
    rig.scheduler.add(second)
    plan = rig.step()
    [chunk] = plan.contexts
    assert (first.skipped, second.skipped) == (0, 12) and chunk.first
    assert (chunk.begin, chunk.length) == (12, 28)
    assert rig.scheduler.prefix_hits == 1
    (_, mine, _), (_, my_speech, _) = rig.tables(first)
    (_, yours, _), (_, your_speech, _) = rig.tables(second)
    assert set(mine) & set(yours) == {mine[0]}, "12 positions fill one block of 8"
    assert my_speech[:7] == your_speech[:7] and not set(my_speech[7:]) & set(your_speech[7:]), "60 fill seven"


def test_blocks_of_a_prefix_are_written_by_nobody():
    rig = Rig()
    run(rig, stream(1, max_tokens=30))
    rig.step()  # the copy of the block that is filled in part
    [prefix] = rig.scheduler._memory._prefixes.values()
    before = [{key: value for key, value in pool.items() if key[0] in blocks} for pool, blocks in
              zip(rig.pools, prefix.blocks, strict=True)]  # fmt: skip
    run(rig, stream(2, max_tokens=30), stream(3, length=60, max_tokens=30), stream(4, max_tokens=30))
    for _ in range(5):
        rig.step()
    after = [{key: value for key, value in pool.items() if key[0] in blocks} for pool, blocks in
             zip(rig.pools, prefix.blocks, strict=True)]  # fmt: skip
    assert before == after and all(before) and rig.scheduler.prefix_hits == 3


def test_other_messages_and_other_modes_share_nothing():
    rig = Rig()
    run(rig, stream(1), stream(2, system=21), stream(3, mode="s2t"), stream(4, shared=0))
    assert rig.scheduler.prefix_hits == 0


def test_free_blocks_are_what_they_were_and_a_prefix_outlives_its_streams():
    rig = Rig()
    free = rig.scheduler.free_blocks
    first, later = stream(1), stream(2)
    run(rig, first)
    rig.scheduler.remove(first)
    assert rig.scheduler.free_blocks == free and rig.caches[0].unheld_blocks < free[0]
    run(rig, later)
    assert later.skipped == 12
    rig.scheduler.remove(later)
    assert rig.scheduler.free_blocks == free and rig.scheduler.used_blocks == (0, 0)


def test_idle_prefixes_make_room_and_wanted_ones_stay():
    rig = Rig(blocks=12, prefixes=4)  # 96 positions
    for number, system in enumerate((20, 21)):
        run(rig, one := stream(number, system))
        rig.scheduler.remove(one)
    large = stream(9, system=20, length=70, max_tokens=16)  # one block less than there are
    run(rig, large)
    assert large.skipped == 12, "its own prefix stays"
    assert len(rig.scheduler._memory._prefixes) == 1, "the other one made room"
    rig.scheduler.remove(large)
    whole = stream(10, system=20, length=80, max_tokens=16)
    run(rig, whole)
    assert whole.slot >= 0 and whole.skipped == 0, "with a prefix beside it, it could never run"


def test_a_tainted_stream_takes_its_prefix_along():
    rig, first = Rig(), stream(1)
    run(rig, first)
    held = [set(blocks) for _, blocks, _ in rig.tables(first)]
    freed = rig.scheduler.discard(first)
    assert all(mine < set(blocks) for mine, blocks in zip(held, freed, strict=True)), "and the prefix's own block"
    run(rig, second := stream(2))
    assert second.skipped == 0


def test_blocks_of_others_are_not_cleared():
    rig, first, second = Rig(), stream(1), stream(2)
    run(rig, first, second)
    tables = [set(blocks) for _, blocks, _ in rig.tables(second)]
    freed = rig.scheduler.discard(first)
    assert not any(set(blocks) & table for blocks, table in zip(freed, tables, strict=True))


def test_nothing_is_kept_when_switched_off():
    rig = Rig(prefixes=0)
    run(rig, stream(1), second := stream(2))
    assert second.skipped == 0 and rig.caches[0].unheld_blocks == rig.caches[0].free_blocks


actions = st.lists(
    st.tuples(
        st.sampled_from(["add", "step", "remove", "taint"]),
        st.integers(0, 3),  # system message, or which live stream
        st.integers(0, 30),  # its length
        st.integers(1, 60),  # the rest of the prompt
        st.booleans(),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(actions, st.sampled_from([8, 20, 64]), st.sampled_from([16, 64]))
def test_whatever_happens_every_stream_reads_what_it_would_have_computed(actions, blocks, chunk):
    rig = Rig(blocks, chunk)
    free, streams = rig.scheduler.free_blocks, []
    for key, (action, number, shared, rest, speaks) in enumerate(actions):
        if action == "add" and shared + rest + 4 <= blocks * TOKENS:
            streams.append(stream(key, number, shared + rest, shared, "s2s" if speaks else "s2t", 4))
            rig.scheduler.add(streams[-1])
        elif action == "step":
            rig.step()
            for done in [s for s in streams if s.position >= s.max_positions]:
                rig.scheduler.remove(done)
                streams.remove(done)
        elif streams:
            one = streams.pop(number % len(streams))
            if action == "taint" and one.slot >= 0:
                rig.scheduler.discard(one)
            else:
                rig.scheduler.remove(one)
        for cache in rig.caches:
            owners = Counter(block for blocks in cache._owned.values() for block in blocks)
            assert cache.free_blocks == cache.unheld_blocks + cache.idle(cache._kept)
            assert all(count == 1 or block in cache._kept for block, count in owners.items())
    for one in streams:
        rig.scheduler.remove(one)
    assert rig.scheduler.free_blocks == free and rig.scheduler.used_blocks == (0, 0)
    while rig.scheduler._memory._prefixes:
        rig.scheduler._memory._drop(next(iter(rig.scheduler._memory._prefixes)))
    assert all(sorted(c._free) == list(range(c.shape.num_blocks)) for c in rig.caches), "nothing lost, nothing twice"


@pytest.mark.parametrize(
    ("messages", "ids", "length"),
    [
        ([Message("system", ("Be kind.",)), Message("user", ("Hi",))], [9, 8, 4, 9, 7, 4, 9], 3),
        ([Message("user", ("Hi",))], [9, 8, 4, 9], 0),
        ([Message("system", (None,)), Message("user", ("Hi",))], [9, 1, 1, 4, 9, 7, 4, 9], 0),
        ([Message("system", ("Be kind.",))], [9, 8, 4], 0),
    ],
)
def test_only_a_system_message_of_text_is_shared(messages, ids, length):
    assert shared_length(messages, np.array(ids), TEXT.stop) == length
