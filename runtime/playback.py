"""A listener who plays sound the moment it comes, without a buffer. Plain arithmetic on given times.

One definition of an underrun: the server estimates it, the load generator measures it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Playback:
    """What one listener hears.

    Args:
        rate: samples per second.
    """

    rate: int
    samples: int = 0
    dry_at: float = 0.0  # when everything that came is heard
    silences: int = 0
    silence_s: float = 0.0

    def play(self, now: float, samples: int) -> float:
        """Takes sound that arrived at ``now`` (any steady clock); returns the seconds of silence before it."""
        if samples <= 0:
            return 0.0
        silence = max(0.0, now - self.dry_at) if self.samples else 0.0
        if silence:
            self.silences += 1
            self.silence_s += silence
        self.dry_at = max(now, self.dry_at if self.samples else now) + samples / self.rate
        self.samples += samples
        return silence
