"""The door: every request is let in or refused here, before any of its tensors is touched.

Called in Triton's thread, so that a refusal waits for nothing else that the service does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from runtime.errors import Draining, ServeError
from runtime.families.base import Family
from runtime.logs import log_fault
from runtime.options import Options
from runtime.params import DEFAULT_MAX_TOKENS
from runtime.requests.limits import RequestLimits
from runtime.requests.parse import Arrays, Parameters, parse_parameters
from runtime.run_folder import ModelRunFolder
from runtime.scheduling.scheduler import Scheduler
from runtime.serving.admission import Admission, Bounds, Ticket
from runtime.serving.keys import key_name
from runtime.serving.metrics import Metrics
from runtime.serving.request import Request, ResponseSender, Timings
from runtime.serving.unsent import RetryingSender, UnsentResponses

logger = logging.getLogger(__name__)


class RawRequest(Protocol):
    """A request as its transport has it. What raises here is the request's fault or its end."""

    def parameters(self) -> Mapping[str, Any]:
        """Scalars by name."""

    def samples(self) -> int:
        """Length of ``audio``, all clips together."""

    def timeout_s(self) -> float | None:
        """How long its client waits for the whole answer, where it says so."""

    def read(self, check: Callable[[Arrays], None]) -> tuple[Arrays, frozenset[str]]:
        """Copies of the tensors, when ``check`` does not object to their sizes, and the wanted outputs."""


class Door:
    """Lets requests in and hands them over.

    Args:
        options: of the rendered folder.
        limits: of one request, and of the requests of one API key.
        family: says how many positions a second of sound takes, and the default of ``sample_rate``.
        scheduler: asked for what is free and for what can never fit.
        hand_over: takes a request that was let in; called in Triton's thread.
        sent_away: see ``Admission``.
    """

    def __init__(
        self,
        options: Options,
        limits: RequestLimits,
        family: Family,
        scheduler: Scheduler,
        run_folder: ModelRunFolder,
        metrics: Metrics,
        hand_over: Callable[[Request], None],
        sent_away: Callable[[Ticket], None],
    ) -> None:
        self._limits, self._family, self._scheduler = limits, family, scheduler
        self._run_folder, self._metrics, self._hand_over = run_folder, metrics, hand_over
        self.unsent = UnsentResponses()
        self._closed: ServeError | None = None
        waits = options.serving.max_wait_s, options.serving.batch_wait_s
        bounds = Bounds(options.max_live, waits, limits.streams_per_key, limits.streams_without_key)
        self.admission = Admission(bounds, scheduler.resources, lambda: scheduler.free, sent_away, metrics.waited)

    def receive(self, raw: RawRequest, sender: ResponseSender) -> None:
        """Takes a request or answers it with an error. Returns at once."""
        sender, timings, ticket = RetryingSender(sender, self.unsent), Timings(on_mark=self._metrics.moment), None
        try:
            if self._run_folder.draining:
                raise Draining("server", "is stopping", "send the request to another server or retry in a minute")
            self.check_open()
            given = raw.parameters()
            parameters = parse_parameters(given, self._family.features.sample_rate, self._limits)
            ticket = self._enter(parameters, raw, key_name(given))
            system = parameters.system or ""
            arrays, outputs = raw.read(lambda arrays: self._limits.check(arrays, parameters.sample_rate, system))
        except Exception as error:  # whatever it is, this request ends with it
            if ticket is not None:
                self.admission.leave(ticket)
            if not isinstance(error, ServeError):
                log_fault(logger, "a request failed", error)
            self._metrics.rejected(error)
            sender.fail(error)
            return
        self._hand_over(Request(parameters, arrays, outputs, sender, ticket, timings))

    def close(self, error: ServeError) -> None:
        """Refuses all from now on with this error."""
        self._closed = error

    def check_open(self) -> None:
        """Raises the error that the door was closed with."""
        if self._closed is not None:
            raise self._closed

    def _enter(self, parameters: Parameters, raw: RawRequest, key: str) -> Ticket:
        prompt = int(raw.samples() / parameters.sample_rate * self._family.position_hz)  # positions, at least
        speaks, most = parameters.answer.speaks, parameters.answer.max_tokens
        if "max_tokens" in parameters.given:
            self._scheduler.check_size(prompt, most, speaks)
        else:
            most = max(1, min(DEFAULT_MAX_TOKENS, self._scheduler.room(prompt)))
        need = self._scheduler.need(prompt + most, speaks)
        return self.admission.enter(parameters.priority, need, raw.timeout_s(), key)
