"""Ends all live requests with one error: drain, stop, lost thread, lost stage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from runtime.errors import Draining, EngineFault, ServeError
from runtime.frames.loop import StreamFrame
from runtime.logs import kind, log_fault
from runtime.scheduling.stream import FAULT
from runtime.serving.admission import Ticket
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.door import Door
from runtime.serving.request import Request
from runtime.serving.stage_guard import FailureStreak

logger = logging.getLogger(__name__)

DEATH_DELAY_S = 0.5  # for the last error responses to leave the process


class Shutdown:
    """Ends every request with an error, and the process where only a restart helps.

    Args:
        thread: in which requests are served.
        door: closed before the end.
        live: the requests that were let in and have no last response.
        die: ends the process; the supervisor starts all again.
        patience_s: engines that give every stream nothing finite for longer need such a start.
    """

    def __init__(
        self,
        thread: AsyncioThread,
        door: Door,
        live: Mapping[Ticket, Request],
        die: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._thread, self._door, self._live, self.die = thread, door, live, die
        self.broken_steps = FailureStreak(patience_s)

    # ---- asyncio thread ----

    async def out_of_time(self) -> None:
        """The grace period of a drain is over."""
        await self._close(Draining("server", "stopped before this answer was complete", "send it again"))

    async def stop(self) -> None:
        """This service is to end."""
        await self._close(Draining("server", "is stopping", "send the request again"))

    async def _close(self, error: ServeError) -> None:
        """Refuses what comes from now on and ends every request; returns when they have their last responses."""
        self._door.close(error)
        for request in list(self._live.values()):
            request.end(error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEATH_DELAY_S):
                while self._live:  # those that had no first step yet meet the closed door there
                    await asyncio.sleep(0)

    def response_stuck(self) -> None:
        """A last response can never be sent; its client hears of it when this process ends."""
        self.stage_lost(EngineFault("server", "could not end another answer", "it restarts: send the request again"))

    def stage_lost(self, error: ServeError) -> None:
        """What is lost only a restart brings back: this process ends."""
        log_fault(logger, str(error), error)
        task = self._thread.loop.create_task(self._close(error))
        task.add_done_callback(lambda _: self._thread.loop.call_later(DEATH_DELAY_S, self.die))

    def judge(self, frames: Sequence[StreamFrame]) -> None:
        """Counts the steps in a row that gave no stream anything finite; after too many the engines are broken."""
        if any(item.frame.finish != FAULT for item in frames):
            self.broken_steps.over()
        elif frames and self.broken_steps.record_failure():
            problem = "gave no stream anything finite"
            self.stage_lost(EngineFault("engine", problem, "the server restarts: send the request again"))

    def thread_lost(self, error: BaseException) -> None:
        """The asyncio thread cannot go on: freeing what a request holds needs its loop, a last response does not."""
        lost = _restart("server", error)
        self._door.close(lost)
        for request in list(self._live.values()):
            try:
                request.sender.fail(lost)
            except Exception as problem:  # of one: the others, and this process, still end
                log_fault(logger, "a request could not be ended", problem)
        time.sleep(DEATH_DELAY_S)
        self.die()

    # ---- frame loop thread ----

    def loop_lost(self, error: BaseException) -> None:
        """The frame loop cannot go on."""
        with contextlib.suppress(Exception):  # the other thread may be dead too
            self._thread.run(self._close(_restart("engine", error))).result(DEATH_DELAY_S)
        time.sleep(DEATH_DELAY_S)
        self.die()


def _restart(part: str, error: BaseException) -> EngineFault:
    return EngineFault(part, f"failed ({kind(error)})", "the server restarts: send the request again")
