"""The order of the waiting queue, for any history of it."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from client.protocol.requests import Priority
from runtime.scheduling.waiting import WaitingQueue

BOUND = 5
classes = st.sampled_from(list(Priority))


class Queues(RuleBasedStateMachine):
    """A bounded queue beside a plain list of what should be in it, in order of arrival."""

    def __init__(self):
        super().__init__()
        self.queue = WaitingQueue()
        self.numbers = itertools.count()
        self.inside, self.left = [], []
        self.entered = 0

    @rule(priority=classes)
    def arrive(self, priority):
        if len(self.queue) == BOUND:
            victim = self.queue.displace(priority)
            if victim is None:
                assert all(other <= priority for _, other in self.inside), "somebody lower could have gone"
                return
            lowest = max(other for _, other in self.inside)
            assert victim[1] == lowest > priority
            assert victim == [item for item in self.inside if item[1] == lowest][-1], "the newest goes"
            self._leave(victim)
        item = (next(self.numbers), priority)
        self.entered += 1
        self.inside.append(item)
        self.queue.push(item, priority)

    @precondition(lambda self: self.inside)
    @rule()
    def admit(self):
        expected = min(self.inside, key=lambda item: (item[1], item[0]))
        assert self.queue.head() == expected
        assert self.queue.pop() == expected
        self._leave(expected)

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def remove(self, data):
        item = data.draw(st.sampled_from(self.inside))
        assert self.queue.remove(item) and not self.queue.remove(item)
        self._leave(item)

    def _leave(self, item):
        self.inside.remove(item)
        self.left.append(item)

    @invariant()
    def in_order_bounded_and_complete(self):
        items = list(self.queue)
        assert items == sorted(self.inside, key=lambda item: (item[1], item[0]))
        assert len(items) == len(self.queue) <= BOUND
        assert [self.queue.count(priority) for priority in Priority] == [
            sum(other == priority for _, other in items) for priority in Priority
        ]
        for priority in Priority:
            assert list(self.queue.before(priority)) == [item for item in items if item[1] <= priority]
        assert len(self.left) + len(items) == self.entered and len(set(self.left)) == len(self.left)


TestQueues = Queues.TestCase
TestQueues.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
