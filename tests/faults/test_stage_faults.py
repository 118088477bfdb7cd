"""One answer of many meets a broken stage: it ends with a typed error, the others are what they always are."""

import time
from concurrent.futures import ThreadPoolExecutor

import chat_data
import pytest
from awaiting import until
from faulty import ENDLESS, SPOKEN, attempt, ordered
from harness import gauges

from client import ServerError
from runtime.frontend.mel import speech_frames
from tests.endurance.watching import still_held

STREAMS, RATE = 8, 16_000
CLIP, OTHER = chat_data.wav("noise_2p3s"), chat_data.wav("chirp_0p5s")


def together(url, requests):
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: attempt(url, **request), requests))


def sounding(server):
    """Streams with state in flow and vocoder."""
    values = gauges(server)
    return [values["flow_streams"], values["vocoder_streams"]]


def check_one_lost(server, outcomes, baseline, stage):
    lost = [outcome for outcome in outcomes if outcome.error is not None]
    assert len(lost) == 1, [outcome.error for outcome in outcomes]
    error = lost[0].error
    assert isinstance(error, ServerError) and error.code == "INTERNAL" and error.field == stage
    assert all(outcome.is_golden(baseline) for outcome in outcomes if outcome.error is None)


@pytest.mark.parametrize(
    ("stage", "mode"),
    [("flow", "raise"), ("flow", "nan"), ("vocoder", "raise"), ("vocoder", "nan")],
)
def test_a_sound_stage_fails_for_one_of_eight(faulty, baseline, record, stage, mode):
    began = time.monotonic()
    with ordered(faulty, stage, mode=mode):
        outcomes = together(faulty.url, [SPOKEN] * STREAMS)
    check_one_lost(faulty, outcomes, baseline, stage)
    lost = max(outcome.seconds for outcome in outcomes if outcome.error)
    assert attempt(faulty.url, **SPOKEN).is_golden(baseline), "and so is the next answer"
    assert still_held(faulty) == {}
    what = {"raise": "exception in", "nan": "NaN from"}[mode]
    record.add(
        f"{what} {stage}, one row of a batch",
        f"1 of {STREAMS} streams ended INTERNAL: {stage}, the others with equal ids and sound",
        lost,
        whole_s=round(time.monotonic() - began, 1),
    )


def test_a_flow_that_fails_half_way_loses_no_other_call(faulty, baseline):
    """Caches that were written cannot be put back: what shared the call may end, typed; the next answer is whole."""
    with ordered(faulty, "flow", mode="late"):
        outcomes = together(faulty.url, [SPOKEN] * 2)
    lost = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert lost and all(error.code == "INTERNAL" and error.field in ("flow", "token2wav") for error in lost)
    assert attempt(faulty.url, **SPOKEN).is_golden(baseline)
    assert still_held(faulty) == {}


@pytest.mark.parametrize("stage", ["flow", "vocoder"])
def test_releases_that_fail_are_sent_again(faulty, baseline, stage):
    """A stage that refuses every call, as without shared memory, keeps its streams until it takes a release."""
    left = [1 if stage == "flow" else 0, 1]
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(attempt, faulty.url, **ENDLESS)
        until(lambda: all(sounding(faulty)))
        with ordered(faulty, stage, mode="always"):
            assert outcome.result(60).error.field == stage
            until(lambda: sounding(faulty) == left)
            time.sleep(1.0)  # the release fails meanwhile, twice
            assert sounding(faulty) == left
    until(lambda: not any(sounding(faulty)))
    assert attempt(faulty.url, **SPOKEN).is_golden(baseline)
    assert still_held(faulty) == {}


@pytest.mark.parametrize(
    ("stage", "mode"), [("log_mel", "raise"), ("audio_encoder", "raise"), ("audio_encoder", "nan")]
)
def test_an_encoder_fails_for_one_of_eight(faulty, baseline, record, stage, mode):
    length = len(OTHER) if stage == "log_mel" else speech_frames(len(OTHER), RATE)
    with ordered(faulty, stage, mode=mode, length=length):
        outcomes = together(faulty.url, [SPOKEN | {"audio": OTHER}] + [SPOKEN] * (STREAMS - 1))
    assert outcomes[0].error is not None
    check_one_lost(faulty, outcomes, baseline, stage)
    assert still_held(faulty) == {}
    what = {"raise": "exception in", "nan": "NaN from"}[mode]
    record.add(
        f"{what} {stage}, one clip of a batch",
        f"1 of {STREAMS} requests ended INTERNAL: {stage}, the others with equal ids and sound",
        outcomes[0].seconds,
    )


@pytest.mark.parametrize(
    ("mode", "field"), [("nan backbone", "engine"), ("nan speech", "engine"), ("response raises", "fun_audio_chat")]
)
def test_the_frame_loop_loses_one_of_eight(faulty, baseline, record, mode, field):
    with ordered(faulty, "fun_audio_chat", mode=mode) as order:
        outcomes = together(faulty.url, [SPOKEN] * STREAMS)
        assert not order.exists(), "it happened"
    check_one_lost(faulty, outcomes, baseline, field)
    seconds = max(outcome.seconds for outcome in outcomes if outcome.error)
    # All slots and blocks are used once more, those of the lost stream too.
    assert all(outcome.is_golden(baseline) for outcome in together(faulty.url, [SPOKEN] * 2 * STREAMS))
    assert still_held(faulty) == {}
    record.add(
        {"response raises": "exception while a response is made"}.get(mode, f"NaN from the {mode[4:]} engine"),
        f"1 of {STREAMS} streams ended INTERNAL: {field}, the others with equal ids and sound",
        seconds,
    )
