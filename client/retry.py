"""Decides when a failed request is sent again, and joins a second answer to what was delivered of the first.

A request is repeated only while no sound was delivered: a listener must never hear a beginning twice.
Text and ids that were delivered already must come again as they were (give a ``seed``), and are left out.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from .chunks import Chunk
from .connection import RECONNECT_S
from .errors import ChatError, ServerError, ServerLost


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """So many attempts, with a growing, random pause between them.

    Args:
        attempts: in all; 1 never repeats.
        first_s: longest pause before the second attempt; doubles with each further one.
        most_s: longest pause, beyond what the server asks for.
        reconnect_s: how long the connection to a lost server may take to come back, at each attempt.
    """

    attempts: int = 3
    first_s: float = 0.2
    most_s: float = 2.0
    reconnect_s: float = RECONNECT_S

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ValueError(f"attempts: {self.attempts} is below 1")
        if not 0 < self.first_s <= self.most_s:
            raise ValueError(f"first_s: {self.first_s} is not in (0, most_s = {self.most_s}]")

        if self.reconnect_s <= 0:
            raise ValueError(f"reconnect_s: {self.reconnect_s} is not above 0")

    def pause(self, failures: int, hint_s: float | None = None, draw: Callable[[], float] = random.random) -> float:
        """Seconds to wait after so many failures: between half of the bound and all of it, after the server's hint.

        Clients that lost the same server, or were refused by it, at the same moment must not all come back at
        the same moment.
        """
        bound = min(self.most_s, self.first_s * 2.0 ** (failures - 1))
        return (hint_s or 0.0) + bound * (1 + draw()) / 2


NO_RETRY = RetryPolicy(attempts=1)


def worth_repeating(error: ChatError) -> bool:
    """Whether the same request may succeed later: the server is gone, full, stopping or not ready yet."""
    return isinstance(error, ServerLost) or (isinstance(error, ServerError) and error.code == "UNAVAILABLE")


@dataclass(slots=True)
class Seen:
    """One growing sequence of an answer, and how much of it a new attempt has yet to repeat."""

    values: list[str] | list[int]
    repeated: int = 0

    def fresh(self, new: Sequence[str] | Sequence[int]) -> int:
        """How many of the new values are known already.

        Raises:
            ValueError: they differ from what was delivered.
        """
        known = self.values[self.repeated : self.repeated + len(new)]
        if list(new[: len(known)]) != list(known):
            raise ValueError
        self.repeated += len(new)
        self.values.extend(new[len(known) :])  # type: ignore[arg-type]
        return len(known)


@dataclass(slots=True)
class Replay:
    """What was delivered so far, over all attempts of one request."""

    heard: bool = False
    _text: Seen = field(default_factory=lambda: Seen([]))
    _text_ids: Seen = field(default_factory=lambda: Seen([]))
    _speech_ids: Seen = field(default_factory=lambda: Seen([]))
    _lost: ChatError | None = None

    def restart(self, lost: ChatError) -> None:
        """A new attempt begins: what it repeats is left out."""
        self._lost = lost
        for seen in (self._text, self._text_ids, self._speech_ids):
            seen.repeated = 0

    def new(self, chunk: Chunk) -> Chunk | None:
        """The part of a chunk that was not delivered yet; None when all of it was.

        Raises:
            ChatError: the loss, when the new attempt does not repeat what was delivered.
        """
        try:
            text = self._text.fresh(chunk.text)
            text_ids = self._text_ids.fresh(chunk.text_token_ids.tolist())
            speech_ids = self._speech_ids.fresh(chunk.speech_token_ids.tolist())
        except ValueError:
            assert self._lost is not None, "a first attempt repeats nothing"
            raise self._lost from None
        self.heard = self.heard or chunk.audio.size > 0
        if not (text or text_ids or speech_ids):
            return chunk
        rest = replace(
            chunk,
            text=chunk.text[text:],
            text_token_ids=chunk.text_token_ids[text_ids:],
            speech_token_ids=chunk.speech_token_ids[speech_ids:],
        )
        news = (rest.text, rest.text_token_ids.size, rest.speech_token_ids.size, rest.audio.size, rest.finish_reason)
        return rest if any(news) else None


@dataclass(slots=True)
class Attempts:
    """The life of one request over its attempts: what was delivered, whether there is a further one, when.

    ``failures``: attempts that another one followed.

    Args:
        timeout: seconds for all attempts together.
    """

    policy: RetryPolicy
    timeout: float | None = None
    clock: Callable[[], float] = time.monotonic
    replay: Replay = field(default_factory=Replay)
    failures: int = 0
    _began: float = field(init=False)

    def __post_init__(self) -> None:
        self._began = self.clock()

    def left(self) -> float | None:
        """Seconds until the deadline, never below 0; None without one."""
        return None if self.timeout is None else max(0.0, self._began + self.timeout - self.clock())

    def after(self, error: ChatError) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            ChatError: the error itself, when there is none.
        """
        failures = self.failures + 1
        if self.replay.heard or failures >= self.policy.attempts or not worth_repeating(error):
            raise error
        hint = error.retry_after_s if isinstance(error, ServerError) else None
        pause, left = self.policy.pause(failures, hint), self.left()
        if left is not None and pause >= left:
            raise error
        self.replay.restart(error)
        self.failures = failures
        return pause
