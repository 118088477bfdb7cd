"""Who is let in, who waits, who is refused, with a clock and a frame loop of the test's own."""

from __future__ import annotations

import pytest

from client.protocol.errors import RETRY_HINT
from client.protocol.requests import Priority
from client.protocol.wire import KEY_HEADER
from runtime.errors import OVERLOADS, Overloaded
from runtime.scheduling.pace import Capacity, Pace
from runtime.serving.admission import LONGEST_RETRY_S, UNKNOWN_RETRY_S, Admission, Bounds
from runtime.serving.keys import NO_KEY

HIGH, LOW = Priority.INTERACTIVE, Priority.BATCH
ONE = Capacity(1, 10, 50)
RESOURCES = ("slots", "kv_backbone", "kv_speech")


class Loop:
    """Slots and blocks as the frame loop would hand them out, strictly in order."""

    def __init__(self, slots=2, backbone=100, speech=500, live=4, wait_s=(10.0, 60.0), **keys):
        self.now, self.left = 0.0, Capacity(slots, backbone, speech)
        self.away, self.waits, self.seated = [], [], []
        self.admission = Admission(
            Bounds(live, wait_s, **keys),
            RESOURCES,
            lambda: self.left,
            self.away.append,
            self.waits.append,
            lambda: self.now,
        )

    def enter(self, priority=HIGH, need=ONE, timeout_s=None, key=NO_KEY):
        return self.admission.enter(priority, need, timeout_s, key)

    def seat(self, ticket):
        self.left = Capacity(*(a - b for a, b in zip(self.left, ticket.need, strict=True)))
        self.seated.append(ticket)
        self.admission.follow(ticket)(True)

    def finish(self, ticket):
        self.left = Capacity(*(a + b for a, b in zip(self.left, ticket.need, strict=True)))
        self.seated.remove(ticket)
        self.admission.follow(ticket)(False)
        self.admission.leave(ticket)

    def run_full(self, answers, seconds):
        """Keeps all slots held and one waiting while so many answers end, one every so many seconds."""
        while self.left[0]:
            self.seat(self.enter())
        waiting = self.enter()
        for _ in range(answers):
            self.now += seconds
            self.finish(self.seated[0])
            self.seat(waiting)
            waiting = self.enter()
        self.admission.leave(waiting)


def refused(loop, bound, *arguments, **options):
    with pytest.raises(Overloaded) as caught:
        loop.enter(*arguments, **options)
    error = caught.value
    assert error.code == "UNAVAILABLE" and error.field == bound and bound in {*OVERLOADS, *RESOURCES}
    hint = float(RETRY_HINT.search(str(error))["seconds"])
    assert hint == pytest.approx(error.retry_after_s, abs=0.051)
    return error


def test_a_full_server_refuses_and_says_when_to_come_back():
    loop = Loop()
    tickets = [loop.enter() for _ in range(4)]
    error = refused(loop, "queue")
    assert str(error).startswith("UNAVAILABLE: queue: 4 requests are here already; retry in")
    assert error.retry_after_s == UNKNOWN_RETRY_S, "nothing is known about the wait yet"
    loop.admission.leave(tickets[0])
    loop.admission.leave(tickets[0])
    assert loop.admission.live == 3, "leaving twice is harmless"
    loop.enter()


def test_nothing_is_refused_on_a_guess():
    loop = Loop(live=100)
    for _ in range(50):
        loop.enter()
    assert loop.admission.live == 50


def test_an_expected_wait_beyond_the_bound_is_refused_at_once():
    loop = Loop(live=100)
    loop.run_full(answers=8, seconds=1.0)  # one slot a second
    for _ in range(10):
        loop.enter()
    error = refused(loop, "slots")
    assert "the wait would be about 11.0 s, more than 10.0 s" in str(error)
    assert error.retry_after_s == pytest.approx(11.0)
    loop.enter(LOW)  # may wait for 60 s


def test_the_deadline_of_the_client_counts():
    loop = Loop(live=100)
    loop.run_full(answers=8, seconds=1.0)
    loop.enter()
    refused(loop, "slots", timeout_s=1.5)
    ticket = loop.enter(timeout_s=3.0)
    loop.now += 3.1
    assert ticket in loop.admission.overdue()


@pytest.mark.parametrize(
    ("bound", "left"),
    [("kv_backbone", {"slots": 5, "backbone": 20}), ("kv_speech", {"slots": 5, "speech": 120}), ("slots", {})],
)
def test_the_scarcest_resource_is_named(bound, left):
    loop = Loop(live=100, wait_s=(1.5, 1.5), **left)
    while loop.left.covers(ONE):
        loop.seat(loop.enter())
    waiting = loop.enter()
    for _ in range(6):
        loop.now += 1.0
        loop.finish(loop.seated[0])
        loop.seat(waiting)
        waiting = loop.enter()
    refused(loop, bound)


def test_text_only_requests_do_not_wait_for_blocks_of_speech():
    loop = Loop(slots=10, speech=100, live=100, wait_s=(1.5, 1.5))
    loop.seat(loop.enter())
    loop.seat(loop.enter())
    waiting = loop.enter()
    for _ in range(6):
        loop.now += 1.0
        loop.finish(loop.seated[0])
        loop.seat(waiting)
        waiting = loop.enter()
    refused(loop, "kv_speech")
    loop.admission.leave(waiting)
    loop.enter(need=Capacity(1, 10, 0))


def test_a_wait_beyond_the_deadline_ends():
    loop = Loop(wait_s=(10.0, 60.0))
    first, second, low = loop.enter(), loop.enter(), loop.enter(LOW)
    loop.seat(first)
    loop.now = 10.1
    assert loop.admission.overdue() == [second] and second.refusal.field == "wait"
    with pytest.raises(Overloaded, match=r"no slot within 10.1 s; retry in"):
        second.check()
    assert loop.admission.overdue() == [] and loop.admission.live == 2
    loop.now = 60.1
    assert loop.admission.overdue() == [low], "the lower class ends knowingly, too"


def test_a_higher_one_displaces_the_newest_lower_one_of_a_full_queue():
    loop = Loop()
    low = [loop.enter(LOW) for _ in range(4)]
    loop.enter(HIGH)
    assert loop.away == [low[3]] and low[3].refusal.field == "displaced" and loop.admission.live == 4
    loop.admission.leave(low[3])
    assert loop.admission.live == 4, "it was counted off when it was displaced"
    refused(loop, "queue", LOW)
    for _ in range(3):
        loop.enter(HIGH)
    assert loop.away == low[::-1]
    refused(loop, "queue", HIGH)


def test_who_holds_a_slot_is_never_displaced():
    loop = Loop(slots=4, speech=1000)
    for _ in range(4):
        loop.seat(loop.enter(LOW))
    refused(loop, "queue", HIGH)
    assert loop.away == [] and loop.waits == [0, 0, 0, 0]


def test_lower_ones_do_not_lengthen_the_wait_of_higher_ones():
    loop = Loop(live=100)
    loop.run_full(answers=8, seconds=1.0)
    for _ in range(30):
        loop.enter(LOW)
    assert [loop.admission.waiting(p) for p in Priority] == [0, 30]
    loop.enter(HIGH)


def test_waits_are_told():
    loop = Loop()
    ticket = loop.enter()
    loop.now = 1.25
    loop.seat(ticket)
    assert loop.waits == [1.25] and loop.admission.waiting(HIGH) == 0


def test_each_key_has_its_own_count_and_those_without_share_one():
    loop = Loop(live=100, per_key=2, without_key=1)
    ones = [loop.enter(key="one") for _ in range(2)]
    others = [loop.enter(key="two"), loop.enter()]
    assert loop.admission.counted == 4
    for key in ("one", NO_KEY):
        with pytest.raises(Overloaded, match=f"{KEY_HEADER}: {key}: [12] at once are allowed; retry in") as caught:
            loop.enter(key=key)
        assert caught.value.field == KEY_HEADER
    assert loop.admission.live == 4, "those count nowhere"
    loop.admission.leave(ones[0])
    loop.admission.leave(ones[0])  # twice is once
    ones.append(loop.enter(key="one"))
    for ticket in ones[1:] + others:
        loop.admission.leave(ticket)
    assert loop.admission.counted == loop.admission.live == 0


def test_who_is_sent_away_gives_its_key_back():
    loop = Loop(live=2, per_key=1)
    loop.enter(key="one")
    loop.enter(LOW, key="two")
    loop.enter(key="three")
    assert loop.admission.counted == 2
    loop.now = 11.0
    assert len(loop.admission.overdue()) == 2 and loop.admission.counted == 0
    loop.enter(key="two")


def test_without_a_limit_no_key_is_counted():
    loop = Loop()
    loop.enter(key="one")
    assert loop.admission.counted == 0 and loop.admission.live == 1


def test_hints_are_bounded():
    loop = Loop(live=1000, wait_s=(1.0, 1e9))
    loop.run_full(answers=8, seconds=1.0)
    for _ in range(200):
        loop.enter(LOW)
    error = refused(loop, "slots", LOW, timeout_s=1.0)
    assert error.retry_after_s == LONGEST_RETRY_S


def test_only_time_in_which_somebody_waited_counts():
    pace = Pace()
    for second in range(10):  # a short answer a minute on an idle server
        pace.freed(60.0 * second, ONE)
    assert pace.rates() is None
    pace.look(1000.0, True)
    for tenth in range(1, 7):
        pace.freed(1000 + tenth / 10, ONE)
    assert pace.rates()[0] == pytest.approx(10.0)
    pace.look(1010.0, True)
    assert pace.rates()[0] == pytest.approx(5 / 9.9), "it falls while nothing becomes free"
    pace.look(1070.0, False)
    assert pace.rates() is None, "what is long ago is forgotten"


@pytest.mark.parametrize("values", [{"live": 0, "wait_s": (1, 1)}, {"live": 1, "wait_s": (1,)}])
def test_bounds_are_checked(values):
    with pytest.raises(ValueError, match=r"live|wait_s"):
        Bounds(**values)
