"""Our load generator on the real server: every kind of arrival, mixed modes, cancels, listeners."""

import asyncio
import time

import chat_data
import pytest

from benchmarks.perf.load import LoadSpec, loaded, measure

CLIPS = [chat_data.wav("chirp_0p5s"), chat_data.wav("noise_2p3s")]
PARAMETERS = {"max_tokens": 12, "seed": 1}


@pytest.mark.parametrize(("kind", "value"), [("concurrency", 2), ("request_rate", 4)])
def test_levels(server, kind, value):
    made = measure(server.url, CLIPS, LoadSpec(kind, value, 12, s2t_share=0.3), PARAMETERS)
    assert (made["requests"], made["errors"], made["cancelled"]) == (12, 0, 0)
    assert made["first_text_ms"]["p50"] <= made["first_audio_ms"]["p50"] <= made["total_ms"]["p99"]
    assert 0 < made["underruns"]["listeners"] < 12, "both modes are there"
    assert made["audio_s_per_s"] > 0 and made["real_time_factor"]["p50"] > 0


def test_listeners_take_as_long_as_their_answers(server):
    began = time.monotonic()
    outcomes, _ = asyncio.run(loaded(server.url, CLIPS, LoadSpec("listeners", 2, 4, think_s=0.1), PARAMETERS))
    heard = sum(outcome.audio_s for outcome in outcomes)
    assert heard > 2 and time.monotonic() - began >= heard / 2


def test_cancels_are_no_errors(server):
    spec = LoadSpec("concurrency", 2, 6, cancel_share=1.0, cancel_after_s=(0.05, 0.2))
    made = measure(server.url, CLIPS, spec, {"max_tokens": 1500, "seed": 1, "system": "Answer in text and speech."})
    assert made["errors"] == 0 and made["cancelled"] == 6


def test_refusals_are_counted_by_their_kind(server):
    made = measure(server.url, CLIPS, LoadSpec("concurrency", 2, 4), {"voice": "nobody"})
    assert made["errors"] == 4 and made["error_kinds"] == {"NOT_FOUND: voice": 4}
