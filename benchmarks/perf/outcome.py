"""One request as its client saw it. Knows times and sizes; knows nothing of who sent the request."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from client.chunks import OUTPUT_RATE
from runtime.playback import Playback

MS = 1000.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """A response: seconds after the request was sent, and what it carried."""

    at_s: float
    has_text: bool
    samples: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """Times in milliseconds since the request was sent; None for what never came.

    Args:
        mode: `s2s` or `s2t`.
        gaps_ms: between one piece of sound and the next; none without sound.
        silences_ms: what a listener without a buffer heard as silence, each time.
        error: code and field of a failure; empty for a success.
        cancelled: the client ended it on purpose.
        sent_s: when it was sent, of any steady clock.
    """

    mode: str
    first_text_ms: float | None = None
    first_audio_ms: float | None = None
    total_ms: float | None = None
    gaps_ms: tuple[float, ...] = ()
    audio_s: float = 0.0
    silences_ms: tuple[float, ...] = ()
    error: str = ""
    cancelled: bool = False
    sent_s: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the whole answer came."""
        return not self.error and not self.cancelled

    @property
    def real_time_factor(self) -> float | None:
        """Time that the answer took per second of its sound."""
        if not self.complete or self.total_ms is None or not self.audio_s:
            return None
        return self.total_ms / MS / self.audio_s


def outcome_of(
    mode: str, arrivals: Iterable[Arrival], error: str = "", cancelled: bool = False, sent_s: float = 0.0
) -> Outcome:
    """The outcome of a request whose responses came in this order."""
    came = list(arrivals)
    texts = [item.at_s for item in came if item.has_text]
    sounds = [item for item in came if item.samples]
    playback = Playback(OUTPUT_RATE)
    silences = [playback.play(item.at_s, item.samples) for item in sounds]
    return Outcome(
        mode=mode,
        first_text_ms=texts[0] * MS if texts else None,
        first_audio_ms=sounds[0].at_s * MS if sounds else None,
        total_ms=came[-1].at_s * MS if came and not error and not cancelled else None,
        gaps_ms=tuple((after - before) * MS for before, after in itertools.pairwise(item.at_s for item in sounds)),
        audio_s=playback.samples / OUTPUT_RATE,
        silences_ms=tuple(silence * MS for silence in silences if silence),
        error=error,
        cancelled=cancelled,
        sent_s=sent_s,
    )
