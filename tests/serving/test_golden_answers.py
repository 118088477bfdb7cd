"""The authors' ids and their sound out of the real server, alone and eight at once."""

from concurrent.futures import ThreadPoolExecutor

import chat_data
import numpy as np
import pytest
from harness import CASES, check, collect, render_offline, request_of

SOUND = 2e-3  # chunks are joined and batched in other shapes than offline, and the phase integrates rounding


@pytest.mark.parametrize("name", CASES)
def test_ids_and_sound(client, built, name):
    answer = collect(client, **request_of(name))
    check(name, answer)
    expected = render_offline(built, answer.codes)
    assert len(answer.sound) == len(expected)
    np.testing.assert_allclose(answer.sound, expected, atol=SOUND, rtol=0)


def test_eight_streams_at_once_change_nothing(client, built):
    """Different prompts and lengths: every id is the authors', the sound that of the ids."""
    names = [*[name for name in CASES if name.startswith("s2s")][:6], "s2t_tones_7s", "s2t_mix_31s"]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(lambda name: collect(client, **request_of(name)), names))
    for name, answer in zip(names, answers, strict=True):
        check(name, answer)
        expected = render_offline(built, answer.codes)
        assert len(answer.sound) == len(expected)
        np.testing.assert_allclose(answer.sound, expected, atol=SOUND, rtol=0)


def test_text_streams_while_the_answer_is_made(client):
    answer = collect(client, **request_of("s2t_mix_31s"))
    assert answer.responses > 10 and answer.text and not answer.codes and not len(answer.sound)
    assert answer.stats["text_tokens"] == len(answer.ids) and answer.stats["total_ms"] > 0


def test_sampled_answers_repeat_with_their_seed_whatever_else_runs(client):
    request = {"audio": chat_data.wav("noise_2p3s"), "seed": 7, "max_tokens": 40, "text_greedy": False}
    alone = collect(client, **request)
    with ThreadPoolExecutor(6) as pool:
        crowd = [pool.submit(collect, client, **request | {"seed": seed}) for seed in (1, 2, 7, 3, 4, 5)]
        answers = [future.result() for future in crowd]
    assert (answers[2].ids, answers[2].codes) == (alone.ids, alone.codes)
    assert answers[0].codes != alone.codes


def test_only_the_wanted_outputs_are_sent(client):
    stream = client.stream(timeout=60, outputs=["text", "finish_reason"], **request_of("s2s_chirp_0p5s"))
    chunks = list(stream)
    assert chunks[-1].finish_reason and chunks[-1].stats is None
    assert not any(len(c.audio) or len(c.text_token_ids) or len(c.speech_token_ids) for c in chunks)


def test_other_rates_and_voices(client):
    clip = chat_data.wav("noise_2p3s")
    slow = collect(client, audio=np.repeat(clip, 3), sample_rate=48_000, greedy=True, max_tokens=30)
    assert slow.finish and slow.stats["audio_samples"] == len(slow.sound)
    first = collect(client, audio=clip, greedy=True, max_tokens=30)
    other = collect(client, audio=clip, greedy=True, max_tokens=30, voice="other")
    assert first.codes == other.codes and not np.allclose(first.sound, other.sound, atol=1e-3)
