"""Can the loads that are under way still end? Triton waits for ever for a stub that died before it was connected."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from runtime.supervisor.process import Child
from runtime.supervisor.watch import is_stub, model_of

STUB_S = 10.0  # between the stub that is asked for a configuration and the one that serves lies well below a second


class LoadWatch:
    """Looks at the stubs of a server while it loads models.

    Args:
        stubs: the server's children now.
        ready: whether a model is loaded.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        stubs: Callable[[], Iterable[Child]],
        ready: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stubs, self._is_ready, self._clock = stubs, ready, clock
        self._ready: set[str] = set()
        self._last_alive: dict[str, float] = {}  # when each model that is not ready last had a stub
        self._any_alive = clock()

    def begin(self) -> None:
        """Call before loads are asked for."""
        self._any_alive = self._clock()

    def loss(self) -> str | None:
        """Which stub died, in words; None while every load can end."""
        now = self._clock()
        living = {model_of(child) for child in self._stubs() if is_stub(child)}
        for model in living - self._ready:
            if self._is_ready(model):
                self._ready.add(model)
                self._last_alive.pop(model, None)
            else:
                self._last_alive[model] = self._any_alive = now
        for model, alive in list(self._last_alive.items()):
            if now - alive > STUB_S and not self._is_ready(model):
                return f"the stub of {model} died while it was loading"
        # A stub may die before it is ever seen.
        return "every stub died while it was loading" if now - self._any_alive > STUB_S else None
