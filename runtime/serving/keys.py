"""Requests at once of each API key. Keys are told apart here, never checked: who may call at all is the token's matter.

A key is kept and shown as a hash only. Requests come in Triton's thread and end in the asyncio thread.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from client.protocol.wire import KEY_HEADER
from runtime.errors import InvalidRequest, Overloaded
from runtime.requests.limits import RequestLimits
from runtime.serving.response import Reply

NO_KEY = "requests without a key"
RETRY_S = 2.0  # about a short answer
SHOWN_DIGITS = 8  # of the hash; enough to tell keys apart in a message


class KeyCounts:
    """Live requests by key, and the bound of each.

    Args:
        limits: ``streams_per_key`` and ``streams_without_key``; 0 is no limit.
    """

    def __init__(self, limits: RequestLimits) -> None:
        self._per_key, self._without = limits.streams_per_key, limits.streams_without_key
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def live(self) -> int:
        """Requests that are counted now."""
        return self._counts.total()

    def enter(self, parameters: Mapping[str, Any], reply: Reply) -> Reply:
        """Counts a request until its last response; returns the reply to use for it.

        Raises:
            InvalidRequest: see ``key_name``.
            Overloaded: this key has as many requests as it may have.
        """
        name = key_name(parameters)
        most = self._without if name == NO_KEY else self._per_key
        if not most:
            return reply
        with self._lock:
            if self._counts[name] >= most:
                raise Overloaded(KEY_HEADER, f"{name}: {most} at once are allowed", retry_after_s=RETRY_S)
            self._counts[name] += 1
        return CountedReply(self, name, reply)

    def leave(self, name: str) -> None:
        """A request that was counted has ended."""
        with self._lock:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]  # keys come and go


class CountedReply:
    """``Reply`` of a counted request: leaves the count just before its last response, once."""

    def __init__(self, counts: KeyCounts, name: str, reply: Reply) -> None:
        self._counts, self._name, self._reply = counts, name, reply
        self._counted = True

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        """See ``Reply``."""
        if final:
            self._leave()
        self._reply.send(arrays, final)

    def fail(self, error: BaseException) -> None:
        """See ``Reply``."""
        self._leave()
        self._reply.fail(error)

    def close(self) -> None:
        """See ``Reply``."""
        self._leave()
        self._reply.close()

    def is_cancelled(self) -> bool:
        """See ``Reply``."""
        return self._reply.is_cancelled()

    def _leave(self) -> None:
        if self._counted:
            self._counted = False
            self._counts.leave(self._name)


def key_name(parameters: Mapping[str, Any]) -> str:
    """Words for the key of a request that tell it from others and do not give it away.

    Raises:
        InvalidRequest: two keys; the one of the proxy cannot be told from one that the client made up.
    """
    keys = [str(value) for name, value in parameters.items() if name.lower() == KEY_HEADER]
    if len(keys) > 1:
        raise InvalidRequest(KEY_HEADER, f"is given {len(keys)} times", "send it once, as a header")
    key = "".join(keys)
    if not key:
        return NO_KEY
    return f"requests with key #{hashlib.sha256(key.encode('utf-8', 'replace')).hexdigest()[:SHOWN_DIGITS]}"
