"""A spoken-like question, synthesised: vowels from formants, a rising end. Deterministic; needs no data.

It is no language. It gives the front end something with the pitch, the pauses and the spectrum of speech.
"""

from __future__ import annotations

import numpy as np

RATE = 16_000  # samples per second
PAUSE_S, FADE_S = 0.06, 0.03
LEVEL = 0.5
PITCH_HZ, RISE_HZ = 130.0, 60.0  # of the first syllable; added by the end of the last
HARMONICS_TO_HZ = 4_000.0
# (duration in s, formants in Hz) of one syllable each: about a, i, u, e, o, a
SYLLABLES = (
    (0.34, (730.0, 1090.0, 2440.0)),
    (0.30, (270.0, 2290.0, 3010.0)),
    (0.36, (300.0, 870.0, 2240.0)),
    (0.32, (530.0, 1840.0, 2480.0)),
    (0.34, (570.0, 840.0, 2410.0)),
    (0.48, (730.0, 1090.0, 2440.0)),
)
BANDWIDTH_HZ = 120.0


def question() -> np.ndarray:
    """About 2.5 s of mono samples in [-1, 1] at RATE. # [samples]"""
    pause = np.zeros(int(PAUSE_S * RATE))
    pieces = []
    for index, (seconds, formants) in enumerate(SYLLABLES):
        rise = RISE_HZ * (index / (len(SYLLABLES) - 1)) ** 3  # a question rises at its end
        pieces += [_syllable(seconds, formants, PITCH_HZ + rise), pause]
    wave = np.concatenate(pieces)
    return (LEVEL * wave / np.abs(wave).max()).astype(np.float32)


def _syllable(seconds: float, formants: tuple[float, ...], pitch: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    glide = pitch * (1.0 + 0.04 * np.sin(2 * np.pi * 3.0 * time))
    phase = 2 * np.pi * np.cumsum(glide) / RATE
    harmonics = range(1, int(HARMONICS_TO_HZ / pitch) + 1)
    wave = sum(_gain(number * pitch, formants) / number * np.sin(number * phase) for number in harmonics)
    edge = np.minimum(1.0, np.minimum(time, time[::-1]) / FADE_S)
    return np.asarray(wave) * edge


def _gain(frequency: float, formants: tuple[float, ...]) -> float:
    return sum(1.0 / (1.0 + ((frequency - formant) / BANDWIDTH_HZ) ** 2) for formant in formants)
