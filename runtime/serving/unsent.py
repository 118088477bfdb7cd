"""Last responses that could not be sent are sent later, so that no client waits for one for ever."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial

import numpy as np

from runtime.logs import log_fault
from runtime.serving.request import ResponseSender

logger = logging.getLogger(__name__)

SENDER_CLOSED = "Response sender has been closed"  # Triton's words


class UnsentResponses:
    """Ends of answers that shared memory had no room for. It gets room as others end, so they are tried again.

    Triton closes a sender before it looks for room for a final response, so one that failed can only be tried again
    where it failed before that. The others are beyond help: their clients hear of their end when this process ends.
    """

    def __init__(self) -> None:
        self._unsent: deque[tuple[ResponseSender, Callable[[], None]]] = deque()  # two threads: single operations only
        self._lost = 0

    def __len__(self) -> int:
        return len(self._unsent)

    def send(self, sender: ResponseSender, end: Callable[[], None], first: bool = True) -> None:
        """Sends a last response, now or at a later ``retry``."""
        try:
            end()
        except Exception as error:
            if first:
                log_fault(logger, "a last response could not be sent", error)
            elif SENDER_CLOSED in str(error):
                self._lost += 1
                return
            self._unsent.append((sender, end))

    def retry(self) -> bool:
        """Tries all again, but those whose client is gone; whether there was one that can never be sent."""
        before = self._lost
        for _ in range(len(self._unsent)):
            sender, end = self._unsent.popleft()
            if not sender.is_cancelled():
                self.send(sender, end, first=False)
        return self._lost > before


class RetryingSender:
    """``ResponseSender`` whose ends always arrive. ``send`` raises what the other one's raises."""

    def __init__(self, sender: ResponseSender, unsent: UnsentResponses) -> None:
        self._sender, self._unsent = sender, unsent
        self.is_cancelled = sender.is_cancelled

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        self._sender.send(arrays, final)

    def fail(self, error: BaseException) -> None:
        self._unsent.send(self._sender, partial(self._sender.fail, error))

    def close(self) -> None:
        self._unsent.send(self._sender, self._sender.close)
