"""What a request may say: its class, and the bounds of its sound."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """The classes, the first served first. Their lower-case names are values of the protocol."""

    INTERACTIVE = 0
    BATCH = 1


DEFAULT_PRIORITY = Priority.INTERACTIVE
PRIORITIES = tuple(priority.name.lower() for priority in Priority)

LOWEST_RATE, HIGHEST_RATE = 4_000, 192_000  # samples per second
LOUDEST = 8.0  # sound that was mastered too loud passes, integers that were never scaled to [-1, 1] do not
