"""Sound of the real server: long answers, company, hops of a request, state."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from harness import collect, gauges, render_offline

from runtime.options import Options
from runtime.token2wav.build import onnx_flow
from runtime.token2wav.hops import EARLIEST_HOPS, ChunkCutter, HopPolicy
from tests.endurance.watching import still_held

RATE = 24_000
# Chunks that waited together are rendered together, in other shapes than offline; the mel then differs by
# rounding (1e-4 at most, tested elsewhere), and the phase of the sound integrates that.
SOUND = 2e-3
SOUND_MINUTE = 1e-2
STORY = {"text": "Tell me a story.", "seed": 4, "temperature": 10.0, "top_p": 1.0}


def difference(answer, built, **options):
    expected = render_offline(built, answer.codes, **options)
    assert len(answer.sound) == len(expected) == answer.stats["audio_samples"]
    return float(np.abs(answer.sound - expected).max())


def test_a_minute_of_sound(client, built, capsys):
    answer = collect(client, **STORY, max_tokens=320)
    assert len(answer.sound) > 60 * RATE
    error = difference(answer, built)
    with capsys.disabled():
        print(f"\n{len(answer.sound) / RATE:.0f} s in {answer.stats['audio_chunks']} chunks, off by {error:.1e}")
    assert error < SOUND_MINUTE


def test_eight_answers_at_once(client, built):
    """Token2wav is behind then, so chunks that wait are joined: fewer calls, the same sound."""
    requests = [STORY | {"seed": seed, "max_tokens": 50 + 10 * seed} for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda request: collect(client, **request), requests))
    assert sum(len(answer.sound) for answer in answers) > 60 * RATE
    for answer in answers:
        assert difference(answer, built) < SOUND
    alone = [len(ChunkCutter(HopPolicy()).push(range(len(answer.codes)))) for answer in answers]
    assert sum(answer.stats["audio_chunks"] for answer in answers) < sum(alone)


@pytest.mark.parametrize(
    ("parameter", "hops"), [({"hops": "20,5,50"}, (20, 5, 50)), ({"earliest": True}, EARLIEST_HOPS)]
)
def test_hops_of_a_request(client, built, parameter, hops):
    answer = collect(client, **STORY, max_tokens=40, **parameter)
    assert len(answer.audio[0]) == (2 * hops[0] - 8) * 480, "the first chunk is never joined"
    assert difference(answer, built, hops=hops) < SOUND


def test_state_is_bounded_counted_and_freed(client, server, built):
    options = Options.read(built).token2wav
    bound = onnx_flow(built / options.dir, 1, options.max_streams, options.window).cache.limit_bytes
    stream, seen = client.stream(timeout=60, **STORY, max_tokens=320), []
    for chunk in stream:
        if len(chunk.audio):
            seen.append(gauges(server))
    held = [values["flow_state_bytes"] for values in seen]
    assert max(values["flow_streams"] for values in seen) == 1
    assert 0 < max(held) <= bound / options.max_streams, "one stream has its share at most"
    assert still_held(server) == {}
