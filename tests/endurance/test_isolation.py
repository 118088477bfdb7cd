"""Canaries: beside any load every stream gets what it gets alone, and nothing of anybody else."""

import asyncio
import random

import numpy as np
import pytest

from tests.endurance.outcome import End, flaw
from tests.endurance.pool import malformed, pool
from tests.endurance.traffic import ALL_OUTPUTS, Traffic
from tests.endurance.watching import still_held
from tests.endurance.wire import STAY, Leave, wire_to

STREAMS, PATIENCE_S = 16, 90.0
SOUND = 1e-2  # chunks are joined and batched in other shapes than alone, and the phase integrates rounding
CROWD = 14  # requests beside the canaries; together fewer than the server holds


@pytest.fixture(scope="module")
def traffic():
    made = Traffic(5, ("other", "中文女"))
    made.pin(STREAMS)
    return made


@pytest.fixture(scope="module")
def alone(server, traffic):
    """Every canary's answer without company."""

    async def ask():
        async with wire_to(server.url) as wire:
            return [await wire.ask(job.payload, PATIENCE_S) for job in traffic.pinned]

    answers = asyncio.run(ask())
    assert all(
        not flaw(answer, ALL_OUTPUTS, job.max_tokens) for answer, job in zip(answers, traffic.pinned, strict=True)
    )
    assert len({(tuple(answer.ids), tuple(answer.codes)) for answer in answers}) == STREAMS, "all are different"
    return answers


def crowd_of(kind, traffic):
    """Payloads and leaves of the load beside the canaries."""
    draw = random.Random(3)
    if kind == "alone":
        return []
    if kind == "malformed":
        return [(case.payload, STAY) for case in pool(malformed(), CROWD, 9)]
    if kind == "cancels":
        return [(traffic.long().payload, Leave(after_responses=draw.randint(1, 20))) for _ in range(CROWD)]
    return [(traffic.short().payload, STAY) for _ in range(CROWD)]


async def together(url, traffic, crowd):
    """The canaries' answers beside a crowd, all mixed and sent within a second."""
    draw = random.Random(1)

    async def soon(wire, payload, leave):
        await asyncio.sleep(draw.random())
        return await wire.ask(payload, PATIENCE_S, leave)

    async with wire_to(url) as wire, wire_to(url) as other:
        canaries = [soon(wire, job.payload, STAY) for job in traffic.pinned]
        answers = await asyncio.gather(*canaries, *(soon(other, *item) for item in crowd))
    return answers[:STREAMS], answers[STREAMS:]


@pytest.mark.parametrize("kind", ["alone", "talkers", "cancels", "malformed"])
def test_company_changes_nothing(server, traffic, alone, kind):
    answers, others = asyncio.run(together(server.url, traffic, crowd_of(kind, traffic)))
    for answer, known in zip(answers, alone, strict=True):
        assert (answer.ids, answer.codes, answer.text) == (known.ids, known.codes, known.text)
        assert len(answer.sound) == len(known.sound)
        np.testing.assert_allclose(answer.sound, known.sound, atol=SOUND, rtol=0)
    expected = {"malformed": {End.ERROR}, "cancels": {End.CANCELLED, End.ANSWER}}.get(kind, {End.ANSWER})
    assert {other.end for other in others} <= expected
    assert still_held(server) == {}


def test_the_sound_of_a_stream_is_its_own(alone):
    """The bound of the test above separates streams: no two spoken canaries sound alike."""
    spoken = [answer.sound for answer in alone if len(answer.sound) > 9600]
    assert len(spoken) > 3
    for number, one in enumerate(spoken):
        for other in spoken[number + 1 :]:
            shared = min(len(one), len(other))
            assert np.abs(one[:shared] - other[:shared]).max() > SOUND
