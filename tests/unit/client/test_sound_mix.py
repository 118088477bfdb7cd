"""Channels to one: no speech is lost, nothing gets louder than it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sound_files import tone

from client.sound.mix import to_mono

SPEECH, NOISE = tone(440, 8000), np.random.default_rng(3).normal(0, 0.1, 8000).astype(np.float32)
RUMBLE = tone(50, 8000, loudness=0.9)


def mono(*channels):
    return to_mono(np.stack(channels, axis=1).astype(np.float32))


def heard(mixed, part):
    """How much of a part is in a mix, as a factor."""
    return abs(float(np.dot(mixed, part) / np.dot(part, part)))


def rms(samples):
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))


@pytest.mark.parametrize("copies", [1, 2, 3, 6])
def test_copies_come_out_as_they_are(copies):
    assert np.array_equal(mono(*[SPEECH] * copies), SPEECH)


@pytest.mark.parametrize("factor", [-1.0, -0.999, -0.9, -0.5, -0.1, 0.0, 0.1, 0.9])
def test_opposed_and_weaker_copies(factor):
    assert heard(mono(SPEECH, factor * SPEECH), SPEECH) == pytest.approx(1.0, abs=1e-4)
    assert heard(mono(factor * SPEECH, SPEECH), SPEECH) == pytest.approx(1.0, abs=1e-4)


def test_speech_in_one_channel_of_many():
    still = np.zeros_like(SPEECH)
    for channels in ([SPEECH, still], [still, SPEECH], [still, still, SPEECH, still, still, still]):
        assert np.array_equal(mono(*channels), SPEECH)


def test_speech_beside_rumble_and_noise():
    still = np.zeros_like(SPEECH)
    assert heard(mono(still, still, SPEECH, RUMBLE, still, still), SPEECH) > 0.7
    assert heard(mono(0.1 * NOISE, 0.1 * NOISE[::-1], SPEECH, still, 0.1 * NOISE, still), SPEECH) > 0.9


def test_opposed_speech_with_a_hum_that_both_have():
    hum = tone(50, 8000, loudness=0.5)
    assert heard(mono(SPEECH + hum, -SPEECH + hum), SPEECH) > 0.3


def test_both_sides_of_a_call_are_heard():
    other = tone(700, 8000)
    mixed = mono(SPEECH, 0.8 * other)
    assert heard(mixed, SPEECH) > 0.3 and heard(mixed, other) > 0.3


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(0.01, 1.0), st.floats(-1, 1))
@settings(max_examples=100, deadline=None)
def test_as_loud_as_the_loudest(seed, channels, loudness, common):
    draw = np.random.default_rng(seed)
    sound = draw.uniform(-1, 1, (2000, channels)) * draw.uniform(0, 1, channels)
    sound = (loudness * ((1 - abs(common)) * sound + common * sound[:, :1] * draw.choice([-1, 1], channels))).astype(
        np.float32
    )
    mixed = to_mono(sound)
    assert mixed.dtype == np.float32 and mixed.shape == (2000,)
    assert np.abs(mixed).max() <= 1.0 + 1e-6, "nothing is clipped by mixing"
    loudest = max(rms(sound[:, i]) for i in range(channels))
    assert rms(mixed) >= loudest * 0.7 and rms(mixed) <= loudest * 1.01


def test_silence_and_constants():
    assert not mono(np.zeros(9), np.zeros(9)).any()
    assert np.allclose(mono(np.full(9, 0.5), np.full(9, -0.5)), 0.5, atol=1e-6)
