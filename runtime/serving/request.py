"""One request of the public model, from its admission to its last response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from runtime.errors import ServeError
from runtime.requests.parse import Arrays, Parameters
from runtime.serving.admission import Ticket


class ResponseSender(Protocol):
    """Where the responses of one request go."""

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        """One response with every output of the contract that the client asked for."""

    def fail(self, error: BaseException) -> None:
        """The last response, an error."""

    def close(self) -> None:
        """Ends the responses without a further one: the client is gone."""

    def is_cancelled(self) -> bool:
        """Whether the client went away."""


@dataclass(slots=True)
class Timings:
    """Moments of a request, seconds of ``time.monotonic``; None until they happen.

    ``on_mark`` is called with each moment's name and the seconds since the request was received.
    """

    received: float = field(default_factory=time.monotonic)
    encoded: float | None = None
    first_frame: float | None = None
    first_text: float | None = None
    first_audio: float | None = None
    on_mark: Callable[[str, float], None] = lambda name, seconds: None

    def mark(self, name: str) -> None:
        """Records the first time that something happens."""
        if getattr(self, name) is None:
            now = time.monotonic()
            setattr(self, name, now)
            self.on_mark(name, now - self.received)

    def milliseconds(self) -> dict[str, float | None]:
        """Each moment and the total, in ms since the request was received."""
        names = ("encoded", "first_frame", "first_text", "first_audio")
        moments = {f"{name}_ms": getattr(self, name) for name in names} | {"total_ms": time.monotonic()}
        return {k: None if t is None else round((t - self.received) * 1000, 3) for k, t in moments.items()}


@dataclass(slots=True, eq=False)
class Request:
    """A request that was let in.

    ``arrays`` are its own tensors, dropped once it is prepared; ``outputs`` the names that its client wants;
    ``task`` serves it; ``why`` is the error that the task was cancelled with, None when the client is gone.
    """

    parameters: Parameters
    arrays: Arrays
    outputs: frozenset[str]
    sender: ResponseSender
    ticket: Ticket
    timings: Timings
    task: asyncio.Task[None] | None = None
    why: ServeError | None = None

    def end(self, why: ServeError | None = None) -> None:
        """Cancels its task, which then sends ``why`` as the last response. Call in the asyncio thread."""
        self.why = self.why or why
        if self.task is not None:  # else it looks for reasons at its first step
            self.task.cancel()
