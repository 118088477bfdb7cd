"""Waiting for what another thread or process does. A test never sleeps in the hope that something has happened."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 20.0  # on a crowded machine; what takes so long usually took no time at all
POLL_S = 0.02

T = TypeVar("T")


def until(made: Callable[[], T], seconds: float = PATIENCE_S, what: str = "the condition did not come true") -> T:
    """Calls ``made`` until it returns something true, and returns that.

    Raises:
        AssertionError: it was false for ``seconds``; ``what`` says what is missing.
    """
    deadline = time.monotonic() + seconds
    while not (value := made()):
        assert time.monotonic() < deadline, what
        time.sleep(POLL_S)
    return value
