"""Stage calls always come to an end, and a stage that Triton gave up ends the process."""

import asyncio
import contextlib
from functools import partial

import numpy as np
import pytest

from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault, Overloaded
from runtime.serving.stage_guard import MANY_FAILURES, UNHEALTHY, GuardedStages, StageHangs
from runtime.serving.stages import SpeechChunk


class Stages:
    def __init__(self, outcome):
        self._outcome = outcome

    async def encode(self, clips):
        return await self.speak(clips)

    async def speak(self, chunks):
        if self._outcome is None:
            await asyncio.sleep(60)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def call(outcome, timeout_s=5.0):
    """What the caller got, and what was told to end the process."""
    told = []
    guarded = GuardedStages(Stages(outcome), timeout_s, told.append)
    try:
        return asyncio.run(guarded.speak([SpeechChunk(1, ChunkFlag.CONTINUE, "a", (1,))])), told
    except Exception as error:
        return error, told


def test_answers_and_ordinary_errors_pass():
    assert call([1]) == ([1], [])
    fault = EngineFault("flow", "failed at this answer", "send it again")
    assert call(fault) == (fault, [])


def test_a_call_that_hangs_ends_with_a_typed_error_and_the_process():
    error, told = call(None, timeout_s=0.05)
    assert isinstance(error, StageHangs) and told == [error]


def test_a_stage_that_triton_gave_up_ends_the_process():
    """Its late answer would go to another call."""
    fault = EngineFault("token2wav", f"in ensemble 'token2wav', Stub process 'flow_0_0' {UNHEALTHY}.", "send it again")
    assert call(fault) == (fault, [fault])


@pytest.mark.parametrize(
    ("raised", "kind", "field"),
    [
        (RuntimeError("private words"), EngineFault, "token2wav"),
        (RuntimeError("Failed to increase the shared memory pool size"), Overloaded, "token2wav"),
    ],
)
def test_exceptions_of_triton_become_typed(raised, kind, field):
    error, told = call(raised)
    assert type(error) is kind and error.field == field and not told
    assert "private" not in str(error)


def speak(guarded, tokens=(1,)):
    return guarded.speak([SpeechChunk(1, ChunkFlag.CONTINUE, "a", tokens)])


def encode(guarded):
    return guarded.encode([np.zeros(400, np.float32)])


def outcomes(kinds, timeout_s, ask=speak):
    """What was told to end the process after calls that ended so, one after another."""
    told, stages = [], Stages(None)
    guarded = GuardedStages(stages, timeout_s, told.append)

    async def run():
        for outcome in kinds:
            stages._outcome = outcome
            with contextlib.suppress(EngineFault, Overloaded):
                await ask(guarded)
            await asyncio.sleep(0.002)

    asyncio.run(run())
    return told


def test_a_stage_that_fails_every_call_for_long_ends_the_process():
    fault, full = EngineFault("flow", "failed", "send it again"), Overloaded("flow", "shared memory is full", 1.0)
    enough = [fault] * (MANY_FAILURES + 1)
    assert outcomes(enough, 0.01) == [fault, fault], "from the first that is one too many"
    assert outcomes(enough, 60.0) == [], "not for long enough"
    assert outcomes([*enough[:-2], [1], *enough[:-2]], 0.01) == [], "it answered in between"
    assert outcomes([full] * (MANY_FAILURES + 5), 0.01) == [], "memory comes back by itself"


def test_an_engine_that_fails_every_chunk_ends_the_process():
    """The stage answers, with a fault for each chunk; releases between them run no engine and say nothing."""
    fault, sound = EngineFault("flow", "failed at this answer", "send it again"), np.zeros(3)
    release = partial(speak, tokens=())
    chunks, releases = [[fault]] * (MANY_FAILURES + 1), [[sound]]
    assert outcomes(chunks, 0.01) == [fault, fault]
    assert outcomes([*chunks[:-2], [sound], *chunks[:-2]], 0.01) == []
    assert outcomes(releases * (MANY_FAILURES + 5), 0.01, release) == []
    assert outcomes([*chunks[:-2], releases[0], *chunks[:2]], 0.01, release) == [], "none of these spoke"


def test_an_encoder_that_gives_nothing_finite_ends_the_process():
    broken, sound = [np.full((1, 4), np.nan)], [np.zeros((1, 4))]
    told = outcomes([broken] * (MANY_FAILURES + 1), 0.01, encode)
    assert [fault.field for fault in told] == ["audio_encoder"] * 2
    assert outcomes([*[broken] * (MANY_FAILURES - 1), sound, broken], 0.01, encode) == []
