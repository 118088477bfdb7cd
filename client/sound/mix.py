"""Mixes channels to one."""

from __future__ import annotations

import numpy as np

OTHERS = 0.5  # weight of every channel but the leading one, so that no two can cancel each other
LIMIT = 1.0


def to_mono(channels: np.ndarray) -> np.ndarray:
    """Mixes channels so that no speech is lost: as loud as the loudest of them, and not beyond 1 by mixing.

    The leading channel is the one with most energy in its changes from sample to sample, which rumble has little of.
    The others are added with half its weight, from the loudest to the softest, each inverted where it would weaken
    the sum. One channel, or copies of one, come out as they are.

    Args:
        channels: [samples, channels] float32, finite.

    Returns:
        [samples] float32.
    """
    first = channels[:, 0]
    if channels.shape[1] == 1 or not len(channels) or (channels == first[:, None]).all():
        return np.ascontiguousarray(first)
    energies = np.array([_energy(channels[:, i]) for i in range(channels.shape[1])])
    lively = np.array([_energy(np.diff(channels[:, i])) for i in range(channels.shape[1])])
    order = np.lexsort((-energies, -lively))
    mixed = channels[:, order[0]].astype(np.float64)
    for i in order[1:]:
        if energies[i]:
            weight = OTHERS if np.dot(mixed, channels[:, i]) >= 0 else -OTHERS
            mixed += weight * channels[:, i]
    return _levelled(mixed, float(energies.max()), max(LIMIT, float(np.abs(channels).max())))


def _levelled(mixed: np.ndarray, energy: float, most: float) -> np.ndarray:
    own = _energy(mixed)
    gain = np.sqrt(energy / own) if own else 1.0
    peak = float(np.abs(mixed).max()) * gain
    return np.asarray(mixed * (gain * min(1.0, most / peak) if peak else 1.0), np.float32)


def _energy(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).sum())
