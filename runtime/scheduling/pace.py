"""What a request takes of the frame loop, and how fast it becomes free. No threads, no clock of its own."""

from __future__ import annotations

from collections import deque

WINDOW_S = 60.0  # what became free longer ago says nothing about now
MEMORY = 64  # releases that are remembered
LEAST_RELEASES = 4  # fewer give no rate


class Capacity(tuple[float, ...]):
    """Slots, then blocks of each cache."""

    def __new__(cls, *values: float) -> Capacity:
        """Takes the slots first."""
        return super().__new__(cls, values)

    def covers(self, other: Capacity) -> bool:
        """Whether there is enough of everything."""
        return all(a >= b for a, b in zip(self, other, strict=True))


class Pace:
    """How fast things became free lately, measured only while a request waited for them.

    An idle server frees little because little was taken: counting its time would make every burst look
    hopeless. So the clock of this class stands still while none waits. All times are seconds of one
    steady clock and never go back.
    """

    def __init__(self) -> None:
        self._releases: deque[tuple[float, float, Capacity]] = deque(maxlen=MEMORY)  # waited time, time, what
        self._waited_s, self._looked, self._short = 0.0, 0.0, False

    def look(self, now: float, short: bool) -> None:
        """Sets whether a request waits for lack of capacity, from ``now`` on."""
        self._advance(now)
        self._short = short

    def freed(self, now: float, what: Capacity) -> None:
        """Notes what became free. Whether a request waits stays as it is: several streams may end in one step."""
        self._advance(now)
        if self._short:
            self._releases.append((self._waited_s, now, what))

    def _advance(self, now: float) -> None:
        if self._short:
            self._waited_s += max(0.0, now - self._looked)
        self._looked = max(now, self._looked)

    def rates(self) -> Capacity | None:
        """Capacity per second at the last event; None while too little is known. Falls while nothing becomes free."""
        while self._releases and self._looked - self._releases[0][1] > WINDOW_S:
            self._releases.popleft()
        if len(self._releases) < LEAST_RELEASES:
            return None
        seconds = self._waited_s - self._releases[0][0]
        if seconds <= 0:
            return None
        whats = [what for _, _, what in list(self._releases)[1:]]  # the first one only begins the time
        return Capacity(*(sum(amounts) / seconds for amounts in zip(*whats, strict=True)))
