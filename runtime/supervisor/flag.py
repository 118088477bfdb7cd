"""A flag that a signal handler may set."""

from __future__ import annotations

import time

STEP_S = 0.05


class Flag:
    """Like ``threading.Event`` without its lock: a handler runs in the main thread, even while that holds the lock."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """From any thread, and from signal handlers."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it was set."""
        return self._set

    def wait(self, seconds: float) -> bool:
        """Waits until it is set, but not longer; whether it is."""
        deadline = time.monotonic() + seconds
        while not self._set and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(STEP_S, left))
        return self._set
