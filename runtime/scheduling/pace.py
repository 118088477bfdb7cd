"""What a request takes of the frame loop, and how fast it becomes free. No threads, no clock of its own."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 60.0  # what became free longer ago says nothing about now
MEMORY = 64  # releases that are remembered
LEAST_RELEASES = 4  # fewer give no rate


class Amounts(NamedTuple):
    """Slots, blocks of the backbone's cache, blocks of the speech head's cache."""

    slots: float
    kv_backbone: float
    kv_speech: float

    def plus(self, other: Amounts) -> Amounts:
        """The sum."""
        return Amounts(*(a + b for a, b in zip(self, other, strict=True)))

    def covers(self, other: Amounts) -> bool:
        """Whether there is enough of everything."""
        return all(a >= b for a, b in zip(self, other, strict=True))


NOTHING = Amounts(0, 0, 0)


class Pace:
    """How fast things became free lately, measured only while somebody waited for them.

    An idle server frees little because little was taken: counting its time would make every burst look
    hopeless. So the clock of this class stands still while nobody waits. All times are seconds of one
    steady clock and never go back.
    """

    def __init__(self) -> None:
        self._releases: deque[tuple[float, float, Amounts]] = deque(maxlen=MEMORY)  # waited time, time, what
        self._waited_s, self._looked, self._short = 0.0, 0.0, False

    def look(self, now: float, short: bool) -> None:
        """From now on somebody waits for more than there is, or nobody does."""
        self._advance(now)
        self._short = short

    def freed(self, now: float, what: Amounts) -> None:
        """So much became free. Whether somebody waits is not asked again: several streams may end in one step."""
        self._advance(now)
        if self._short:
            self._releases.append((self._waited_s, now, what))

    def _advance(self, now: float) -> None:
        if self._short:
            self._waited_s += max(0.0, now - self._looked)
        self._looked = max(now, self._looked)

    def rates(self) -> Amounts | None:
        """Amounts per second at the last event; None while too little is known. Falls while nothing becomes free."""
        while self._releases and self._looked - self._releases[0][1] > WINDOW_S:
            self._releases.popleft()
        if len(self._releases) < LEAST_RELEASES:
            return None
        seconds = self._waited_s - self._releases[0][0]
        if seconds <= 0:
            return None
        total = NOTHING
        for _, _, what in list(self._releases)[1:]:  # the first one only begins the time
            total = total.plus(what)
        return Amounts(*(amount / seconds for amount in total))
