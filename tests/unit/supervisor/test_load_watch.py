"""A stub that dies while its model loads is noticed; one that follows another is not taken for dead."""

from __future__ import annotations

import pytest

from runtime.supervisor.load_watch import STUB_S, LoadWatch
from runtime.supervisor.process import Child


class World:
    """Stubs, ready models and a clock that go as the test says."""

    def __init__(self):
        self.now, self.alive, self.ready = 0.0, set(), set()
        self.watch = LoadWatch(self._stubs, lambda model: model in self.ready, lambda: self.now)
        self.watch.begin()

    def _stubs(self):
        line = "/backends/python/triton_python_backend_stub"
        return [Child(hash(model), (line, f"/out/model_repository/{model}/1/model.py")) for model in self.alive]

    def after(self, seconds, alive, ready=()):
        """What the watch says, looking four times a second."""
        self.alive, self.ready = set(alive), set(ready)
        for _ in range(int(seconds * 4)):
            self.now += 0.25
            loss = self.watch.loss()
            if loss:
                return loss
        return None


@pytest.fixture
def world():
    return World()


def test_a_model_may_load_as_long_as_its_stub_lives(world):
    assert world.after(3600, ["flow"]) is None


def test_the_stub_of_the_configuration_makes_room_for_the_one_that_serves(world):
    assert world.after(3, ["flow"]) is None
    assert world.after(STUB_S / 2, []) is None
    assert world.after(60, ["flow"]) is None


def test_a_stub_that_dies_is_noticed_beside_others_that_load(world):
    assert world.after(3, ["flow", "vocoder"]) is None
    assert world.after(STUB_S + 1, ["vocoder"]) == "the stub of flow died while it was loading"


def test_stubs_that_die_before_they_are_seen(world):
    assert world.after(STUB_S + 1, []) == "every stub died while it was loading"


def test_a_model_that_is_ready_loads_no_more(world):
    assert world.after(3, ["flow", "vocoder"]) is None
    assert world.after(1, ["flow", "vocoder"], ready=["flow"]) is None
    assert world.after(60, ["vocoder"], ready=["flow"]) is None, "its loss is the business of the other watch"


def test_the_next_loads_have_their_own_time(world):
    assert world.after(3, ["flow"]) is None
    assert world.after(1, ["flow"], ready=["flow"]) is None
    world.now += 3600
    world.watch.begin()
    assert world.after(STUB_S / 2, ["flow"], ready=["flow"]) is None
    assert "every stub" in world.after(STUB_S, ["flow"], ready=["flow"])
