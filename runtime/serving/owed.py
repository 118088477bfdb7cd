"""Last responses that could not be sent: nobody may wait for one for ever."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from runtime.faults import log_fault
from runtime.serving.session import Reply

logger = logging.getLogger(__name__)


class OwedReplies:
    """Ends of answers that shared memory had no room for. It gets room as others end, so they are tried again."""

    def __init__(self) -> None:
        self._owed: list[tuple[Reply, Callable[[], None]]] = []

    def __len__(self) -> int:
        return len(self._owed)

    def pay(self, reply: Reply, end: Callable[[], None]) -> None:
        """Sends a last response, now or at a later ``retry``."""
        try:
            end()
        except Exception as error:
            if not any(reply is other for other, _ in self._owed):
                log_fault(logger, "a last response could not be sent", error)
            self._owed.append((reply, end))

    def retry(self) -> None:
        """Tries all again, but those whose client is gone."""
        owed, self._owed = self._owed, []
        for reply, end in owed:
            if not reply.is_cancelled():
                self.pay(reply, end)


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
