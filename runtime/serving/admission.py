"""Which requests may come in, which wait, which are refused. Plain Python: no tensors, no Triton.

A request gets a ticket at the door, before any of its tensors is touched. The ticket waits until the frame loop
gives its stream a slot, and leaves just before the last response. Called from Triton's thread (``enter``), the frame
loop's (``seated``, ``freed``) and the asyncio thread (all else), so one lock guards it; nothing under it is slow.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client.protocol.requests import Priority
from client.protocol.wire import KEY_HEADER
from runtime.errors import Overloaded
from runtime.scheduling.pace import Capacity, Pace
from runtime.scheduling.waiting import WaitingQueue
from runtime.serving.keys import NO_KEY

UNKNOWN_RETRY_S = 2.0  # hint while nothing is known about the wait: about a short answer
SHORTEST_RETRY_S, LONGEST_RETRY_S = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """``live``: requests without a last response. ``wait_s``: longest wait for a slot, by class.

    ``per_key``, ``without_key``: live requests with one API key, and of all those without; 0 is no limit.
    """

    live: int
    wait_s: tuple[float, ...]
    per_key: int = 0
    without_key: int = 0

    def __post_init__(self) -> None:
        if self.live < 1:
            raise ValueError(f"live: {self.live} is below 1")
        if len(self.wait_s) != len(Priority) or min(self.wait_s) <= 0:
            raise ValueError(f"wait_s: {self.wait_s} is not one positive time for each class")


class Ticket:
    """One request from the door to its last response.

    Args:
        priority: its class.
        need: what it takes of the frame loop, an estimate at first.
        arrived: in the clock of the admission.
        patience_s: how long it may wait.
        key: whose count it is in; empty where that has no bound.
    """

    __slots__ = ("_patience_s", "arrived", "key", "need", "present", "priority", "refusal")

    def __init__(self, priority: Priority, need: Capacity, arrived: float, patience_s: float, key: str) -> None:
        self.priority, self.need, self.arrived, self._patience_s = priority, need, arrived, patience_s
        self.key = key
        self.present = True  # is counted
        self.refusal: Overloaded | None = None  # why it was sent away after it had been let in

    def check(self) -> None:
        """Raises the refusal of a ticket that was sent away."""
        if self.refusal is not None:
            raise self.refusal

    def overdue(self, now: float) -> bool:
        """Whether it has waited longer than it may."""
        return now - self.arrived > self._patience_s


class Admission:
    """All tickets of one service.

    Args:
        bounds: see ``Bounds``.
        resources: names of what is counted, slots first.
        free: what the frame loop has left of each; called under the lock, from any thread.
        sent_away: told of a ticket that had been let in and is displaced; in the thread of ``enter``.
        waited: told how many seconds a stream waited for its slot; in the thread of ``seated``.
    """

    def __init__(
        self,
        bounds: Bounds,
        resources: Sequence[str],
        free: Callable[[], Capacity],
        sent_away: Callable[[Ticket], None],
        waited: Callable[[float], None] = lambda seconds: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bounds, self._resources, self._free, self._clock = bounds, resources, free, clock
        self._sent_away, self._waited = sent_away, waited
        self._lock = threading.Lock()
        self._waiting: WaitingQueue[Ticket] = WaitingQueue()
        self._live = 0
        self._keys: Counter[str] = Counter()  # live requests of each key that has a bound
        self._pace = Pace()

    @property
    def live(self) -> int:
        """Requests without a last response."""
        return self._live

    @property
    def counted(self) -> int:
        """Live requests that count towards the bound of a key."""
        with self._lock:
            return self._keys.total()

    def waiting(self, priority: Priority) -> int:
        """Requests of a class that have no slot yet."""
        return self._waiting.count(priority)

    def enter(self, priority: Priority, need: Capacity, timeout_s: float | None = None, key: str = NO_KEY) -> Ticket:
        """Lets a request in, or raises Overloaded at once.

        Args:
            need: what it takes at least.
            timeout_s: how long its client waits for the whole answer.
            key: of ``key_name``.
        """
        patience = self._bounds.wait_s[priority]
        patience = patience if timeout_s is None else min(patience, timeout_s)
        with self._lock:
            counted = self._check_key(key)
            now = self._look()
            self._check_wait(priority, need, patience)
            displaced = self._make_room(priority, need)
            ticket = Ticket(priority, need, now, patience, counted)
            self._waiting.push(ticket, priority)
            self._live += 1
            if counted:
                self._keys[counted] += 1
            self._look()
        if displaced is not None:
            self._sent_away(displaced)
        return ticket

    def follow(self, ticket: Ticket) -> Callable[[bool], None]:
        """``Stream.on_slot`` for the ticket's stream."""
        return lambda held: self.seated(ticket) if held else self.freed(ticket)

    def seated(self, ticket: Ticket) -> None:
        """The ticket's stream got a slot and its blocks."""
        with self._lock:
            waited = self._waiting.remove(ticket)
            now = self._look()
        if waited:
            self._waited(now - ticket.arrived)

    def freed(self, ticket: Ticket) -> None:
        """The ticket's stream gave its slot and its blocks back."""
        with self._lock:
            self._pace.freed(self._clock(), ticket.need)

    def leave(self, ticket: Ticket) -> None:
        """The request got its last response, or its client is gone. Leaving twice is harmless."""
        with self._lock:
            self._forget(ticket)
            self._look()

    def overdue(self) -> list[Ticket]:
        """Takes out the tickets that waited too long; each has its refusal. Call a few times a second."""
        with self._lock:
            now = self._look()
            late = [ticket for ticket in self._waiting if ticket.overdue(now)]
            for ticket in late:
                self._forget(ticket)
                ticket.refusal = self._refusal("wait", f"no slot within {now - ticket.arrived:.1f} s", ticket)
            return late

    def _look(self) -> float:
        now = self._clock()
        short = bool(self._waiting) and not self._free().covers(self._waiting.head().need)
        self._pace.look(now, short)
        return now

    def _check_key(self, key: str) -> str:
        """The key to count the request with, empty where it has no bound."""
        most = self._bounds.without_key if key == NO_KEY else self._bounds.per_key
        if most and self._keys[key] >= most:
            raise Overloaded(KEY_HEADER, f"{key}: {most} at once are allowed", retry_after_s=UNKNOWN_RETRY_S)
        return key if most else ""

    def _check_wait(self, priority: Priority, need: Capacity, patience: float) -> None:
        bound, expected = self._expected(priority, need)
        if expected is not None and expected > patience:
            raise Overloaded(
                bound, f"the wait would be about {expected:.1f} s, more than {patience:.1f} s", "", _hint(expected)
            )

    def _make_room(self, priority: Priority, need: Capacity) -> Ticket | None:
        """The ticket that has to go for a newcomer, if one has to. Raises Overloaded when the newcomer has to."""
        if self._live < self._bounds.live:
            return None
        displaced, full = self._waiting.displace(priority), f"{self._bounds.live} requests are here already"
        if displaced is None:
            raise Overloaded("queue", full, "", _hint(self._expected(priority, need)[1]))
        self._forget(displaced)
        displaced.refusal = self._refusal("displaced", f"{full}, and one of a higher class came", displaced)
        return displaced

    def _expected(self, priority: Priority, need: Capacity) -> tuple[str, float | None]:
        """The scarcest resource, and the seconds until it suffices for a newcomer; None while that is unknown."""
        needs = [ticket.need for ticket in self._waiting.before(priority)] + [need]
        asked = Capacity(*(sum(amounts) for amounts in zip(*needs, strict=True)))
        rates, worst = self._pace.rates() or (0.0,) * len(asked), (self._resources[0], 0.0)
        for name, wanted, there, rate in zip(self._resources, asked, self._free(), rates, strict=True):
            if wanted <= there:
                continue
            if not rate:
                return name, None
            worst = max(worst, (name, (wanted - there) / rate), key=lambda found: found[1])
        return worst

    def _refusal(self, bound: str, problem: str, ticket: Ticket) -> Overloaded:
        return Overloaded(bound, problem, "", _hint(self._expected(ticket.priority, ticket.need)[1]))

    def _forget(self, ticket: Ticket) -> None:
        if ticket.present:
            ticket.present = False
            self._live -= 1
            self._waiting.remove(ticket)
            if ticket.key:
                self._keys[ticket.key] -= 1
                self._keys += Counter()  # without those at 0: keys come and go


def _hint(expected: float | None) -> float:
    """When those that are ahead now should have a slot."""
    return min(max(UNKNOWN_RETRY_S if expected is None else expected, SHORTEST_RETRY_S), LONGEST_RETRY_S)
