"""The door: every request is let in or refused here, before any of its tensors is touched.

Called in Triton's thread, so that a refusal waits for nothing else that the service does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from runtime.errors import Draining, ServeError
from runtime.logs import log_fault
from runtime.options import Options
from runtime.params import DEFAULT_MAX_TOKENS
from runtime.requests.limits import RequestLimits
from runtime.requests.parse import outline, parse_parameters
from runtime.run_folder import ModelRunFolder
from runtime.scheduling.scheduler import Scheduler
from runtime.serving.admission import Admission, Bounds, Ticket
from runtime.serving.keys import KeyCounts
from runtime.serving.metrics import Metrics
from runtime.serving.response import Reply, Timings
from runtime.serving.unsent import OwedReplies, SureReply

logger = logging.getLogger(__name__)

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Asked:
    """What costs nothing to know of a request.

    ``samples``: of all clips. ``timeout_s``: how long its client waits for the whole answer, where it says so.
    """

    parameters: Mapping[str, Any]
    samples: int = 0
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request that was let in: its own tensors, its parameters, wanted outputs, where the answer goes."""

    arrays: Arrays
    outputs: frozenset[str]
    parameters: Mapping[str, Any]
    reply: Reply
    ticket: Ticket
    timings: Timings


Check = Callable[[Arrays], None]
Read = Callable[[Check], tuple[Arrays, frozenset[str]]]


class Door:
    """Lets requests in and hands them over.

    Args:
        options: of the rendered folder.
        limits: of one request, and of the requests of one API key.
        rate: of the model's sound; the default of ``sample_rate``.
        scheduler: asked for what is free and for what can never fit.
        hand_over: takes a request that was let in; must be safe to call in Triton's thread.
        sent_away: see ``Admission``.
    """

    def __init__(
        self,
        options: Options,
        limits: RequestLimits,
        rate: int,
        scheduler: Scheduler,
        run_folder: ModelRunFolder,
        metrics: Metrics,
        hand_over: Callable[[Incoming], None],
        sent_away: Callable[[Ticket], None],
    ) -> None:
        self._limits, self._rate, self._scheduler = limits, rate, scheduler
        self._run_folder, self._metrics, self._hand_over = run_folder, metrics, hand_over
        self.keys, self.owed = KeyCounts(limits), OwedReplies()
        self._closed: ServeError | None = None
        bounds = Bounds(options.max_live, (options.serving.max_wait_s, options.serving.batch_wait_s))
        self.admission = Admission(bounds, scheduler.resources, lambda: scheduler.free, sent_away, metrics.waited)

    def receive(self, asked: Asked, reply: Reply, read: Read) -> None:
        """Takes a request or answers it with an error. Returns at once.

        Args:
            read: copies the tensors, when the check that it is given does not object to their sizes.
        """
        ticket, timings = None, Timings(on_mark=self._metrics.moment)
        reply = SureReply(reply, self.owed)
        try:
            reply = self.keys.enter(asked.parameters, reply)
            ticket = self._enter(asked)
            arrays, outputs = read(partial(self._check, asked))
        except Exception as error:  # whatever it is, this request ends with it
            if ticket is not None:
                self.admission.leave(ticket)
            self.refuse(reply, error)
            return
        self._hand_over(Incoming(arrays, outputs, asked.parameters, reply, ticket, timings))

    def refuse(self, reply: Reply, error: BaseException) -> None:
        """Answers a request that is not let in, or was let in and is not begun."""
        if not isinstance(error, ServeError):
            log_fault(logger, "a request failed", error)
        self._metrics.rejected(error)
        reply.fail(error)

    def _check(self, asked: Asked, arrays: Arrays) -> None:
        self._limits.check(arrays, parse_parameters(asked.parameters), self._rate)

    def close(self, error: ServeError) -> None:
        """Refuses all from now on with this error."""
        self._closed = error

    def check_open(self) -> None:
        """Raises the error that the door was closed with."""
        if self._closed is not None:
            raise self._closed

    def _enter(self, asked: Asked) -> Ticket:
        self.check_open()
        if self._run_folder.draining:
            raise Draining("server", "is stopping", "send the request to another server or retry in a minute")
        seen = outline(asked.parameters, asked.samples, self._rate)
        if seen.answer is not None:
            self._scheduler.check_size(seen.prompt, seen.answer, seen.speaks)
        room = min(DEFAULT_MAX_TOKENS, self._scheduler.room(seen.prompt))
        positions = seen.prompt + max(1, room if seen.answer is None else seen.answer)
        return self.admission.enter(seen.priority, self._scheduler.need(positions, seen.speaks), asked.timeout_s)
