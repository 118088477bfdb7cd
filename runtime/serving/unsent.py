"""Last responses that could not be sent: nobody may wait for one for ever."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import numpy as np

from runtime.logs import log_fault
from runtime.serving.response import Reply

logger = logging.getLogger(__name__)

SENDER_CLOSED = "Response sender has been closed"  # Triton's words


class OwedReplies:
    """Ends of answers that shared memory had no room for. It gets room as others end, so they are tried again.

    Triton closes a sender before it looks for room for a final response, so one that failed can only be tried again
    where it failed before that. The others are beyond help: their clients hear of their end when this process ends.
    """

    def __init__(self) -> None:
        self._owed: deque[tuple[Reply, Callable[[], None]]] = deque()  # two threads: only single operations
        self._lost = 0

    def __len__(self) -> int:
        return len(self._owed)

    def pay(self, reply: Reply, end: Callable[[], None]) -> None:
        """Sends a last response, now or at a later ``retry``."""
        self._pay(reply, end, first=True)

    def retry(self) -> bool:
        """Tries all again, but those whose client is gone; whether there was one that can never be sent."""
        before = self._lost
        for _ in range(len(self._owed)):
            reply, end = self._owed.popleft()
            if not reply.is_cancelled():
                self._pay(reply, end, first=False)
        return self._lost > before

    def _pay(self, reply: Reply, end: Callable[[], None], first: bool) -> None:
        try:
            end()
        except Exception as error:
            if first:
                log_fault(logger, "a last response could not be sent", error)
            elif SENDER_CLOSED in str(error):
                self._lost += 1
                return
            self._owed.append((reply, end))


class SureReply:
    """``Reply`` whose ends always arrive."""

    def __init__(self, reply: Reply, owed: OwedReplies) -> None:
        self._reply, self._owed = reply, owed

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        """See ``Reply``. Raises what the other one raises: the answer then ends with an error."""
        self._reply.send(arrays, final)

    def fail(self, error: BaseException) -> None:
        """See ``Reply``."""
        self._owed.pay(self._reply, lambda: self._reply.fail(error))

    def close(self) -> None:
        """See ``Reply``."""
        self._owed.pay(self._reply, self._reply.close)

    def is_cancelled(self) -> bool:
        """See ``Reply``."""
        return self._reply.is_cancelled()
