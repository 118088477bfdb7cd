"""The real server's metrics endpoint: every family is there, and the numbers move as they should."""

import time

import chat_data
import pytest
from awaiting import until
from harness import SETTLE_S, collect, scrape, settled

from client import ServerError
from runtime.scheduling.caches import CacheSpec
from runtime.serving.metrics import HISTOGRAM, metric_families
from tests.endurance.watching import still_held

FAMILIES = metric_families(
    (CacheSpec("backbone", "backbone"), CacheSpec("speech", "speech head", 5, only_speaking=True))
)

CLIP = chat_data.wav("noise_2p3s")
REQUEST = {"audio": CLIP, "greedy": True, "system": "Answer in text and speech."}


@pytest.fixture
def moved(server):
    """How much every sample grew since the test began, once families have grown, over all labels, by what is named."""
    before = settled(server)

    def grown():
        return {name: value - before[name] for name, value in scrape(server).items()}

    def difference(**expected):
        until(lambda: {name: total(grown(), name) for name in expected} == expected, what=f"no {expected}")
        return {name: value - before[name] for name, value in settled(server).items()}

    return difference


def total(samples, family):
    return sum(value for name, value in samples.items() if name.partition("{")[0] == family)


def test_every_family_is_there_from_the_start(server):
    names = set(scrape(server))
    for family in FAMILIES:
        if family.kind == HISTOGRAM:
            assert {f"{family.name}_count", f"{family.name}_sum"} <= names
            assert sum(name.startswith(f"{family.name}_bucket") for name in names) == len(family.buckets) + 1
        elif family.label:
            assert {f'{family.name}{{{family.label}="{value}"}}' for value in family.values} <= names
        else:
            assert family.name in names


def test_answers_move_their_numbers(client, server, moved):
    spoken = collect(client, **REQUEST, max_tokens=20)
    written = collect(client, **REQUEST, mode="s2t", max_tokens=5)
    grown = moved(answers_total=2, audio_seconds_total=pytest.approx(len(spoken.sound) / 24_000))
    assert grown['requests_total{mode="s2s"}'] == 1 and grown['requests_total{mode="s2t"}'] == 1
    assert grown[f'answers_total{{end="{spoken.finish}"}}'] >= 1
    assert grown["first_text_seconds_count"] == 2 and grown["first_audio_seconds_count"] == 1
    assert grown["first_audio_seconds_sum"] == pytest.approx(spoken.stats["first_audio_ms"] / 1000, abs=0.002)
    assert grown["token2wav_chunks_total"] == spoken.stats["audio_chunks"]
    assert 1 <= grown["token2wav_seconds_count"] <= spoken.stats["audio_chunks"]
    steps = spoken.stats["text_tokens"] + written.stats["text_tokens"]
    assert grown["batch_size_sum"] == steps and grown["step_seconds_count"] >= grown["batch_size_count"] > 0
    assert grown["cancels_total"] == 0 and grown['answers_total{end="error"}'] == 0


def test_a_live_stream_is_seen_to_hold_what_it_holds(client, server):
    assert still_held(server) == {}
    idle = settled(server)
    stream = client.stream(timeout=60, **REQUEST | {"greedy": False, "seed": 1, "max_tokens": 1500})
    next(stream)
    until(lambda: scrape(server)["kv_used_speech"])
    time.sleep(SETTLE_S)  # gauges are sent one after another
    live = scrape(server)
    stream.close()
    assert live["live_requests"] == live["live_streams"] == 1 and live["queue_length"] == 0
    for cache in ("backbone", "speech"):
        assert live[f"kv_used_{cache}"] > 0
        assert live[f"kv_used_{cache}"] + live[f"kv_free_{cache}"] == idle[f"kv_free_{cache}"]
    assert still_held(server) == {}


def test_cancels_and_rejects_are_counted_apart(client, server, moved):
    stream = client.stream(timeout=60, **REQUEST | {"greedy": False, "seed": 1, "max_tokens": 1500})
    next(stream)
    stream.close()
    for wrong in ({"top_p": 7}, {"voice": "nobody"}, {"max_tokens": 100_000}):
        with pytest.raises(ServerError):
            collect(client, audio=CLIP, **wrong)
    grown = moved(cancels_total=1, rejects_total=3)
    assert grown['rejects_total{reason="invalid_request"}'] == 2 and grown['rejects_total{reason="not_found"}'] == 1
    assert grown['requests_total{mode="s2s"}'] == 1, "what is refused was not accepted"
    assert total(grown, "answers_total") == 0


def test_more_streams_than_slots_wait_in_the_queue(client, server):
    request = REQUEST | {"greedy": False, "seed": 1, "max_tokens": 1500}
    streams = [client.stream(timeout=60, **request) for _ in range(20)]
    until(lambda: scrape(server)["queue_length"], what="nobody waits")
    for stream in reversed(streams):
        stream.close()
    assert still_held(server) == {}
