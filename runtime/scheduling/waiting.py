"""The order in which requests wait. Plain Python: no clock, no threads, no tensors.

Two classes: ``interactive`` requests, to which a person listens, and ``batch`` requests. First come first
served within a class; one of the lower class never stands before one of the higher.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from client.protocol.requests import Priority

T = TypeVar("T")


class WaitingQueue(Generic[T]):
    """Items in the order in which they will be served."""

    def __init__(self) -> None:
        self._lines: tuple[deque[T], ...] = tuple(deque() for _ in Priority)

    def push(self, item: T, priority: Priority) -> None:
        """Puts an item behind all others of its class."""
        self._lines[priority].append(item)

    def head(self) -> T:
        """The next item. The queue must not be empty."""
        return next(iter(self))

    def pop(self) -> T:
        """Takes the next item out. The queue must not be empty."""
        return next(line for line in self._lines if line).popleft()

    def remove(self, item: T) -> bool:
        """Takes an item out wherever it stands; returns whether it was there."""
        for line in self._lines:
            if item in line:
                line.remove(item)
                return True
        return False

    def displace(self, priority: Priority) -> T | None:
        """Takes out the item that a newcomer of this class may displace: the newest of the lowest class below it."""
        for line in reversed(self._lines[priority + 1 :]):
            if line:
                return line.pop()
        return None

    def before(self, priority: Priority) -> Iterator[T]:
        """The items that are served before a newcomer of this class, in order."""
        for line in self._lines[: priority + 1]:
            yield from line

    def count(self, priority: Priority) -> int:
        """Items of one class."""
        return len(self._lines[priority])

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[T]:
        for line in self._lines:
            yield from line
