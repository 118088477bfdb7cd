"""How everything ends at once: a drain, a stop, a lost thread or stage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Mapping

from runtime.errors import EngineFault, ServeError
from runtime.faults import kind, log_fault
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.door import Door
from runtime.serving.session import Session
from runtime.stream import Stream

logger = logging.getLogger(__name__)

DEATH_DELAY_S = 0.5  # for the last error responses to leave the process


class Endings:
    """Ends every request with an error, and the process where only a restart helps.

    Args:
        thread: in which sessions and tasks live.
        door: closed before the end.
        sessions: of the requests that were begun.
        tasks: of those that are being prepared.
        die: ends the process; the supervisor starts all again.
    """

    def __init__(
        self,
        thread: AsyncioThread,
        door: Door,
        sessions: Mapping[Stream, Session],
        tasks: Collection[asyncio.Task[None]],
        die: Callable[[], None],
    ) -> None:
        self._thread, self._door, self._sessions, self._tasks, self._die = thread, door, sessions, tasks, die
        self._why: ServeError | None = None

    def reason(self, error: BaseException) -> BaseException:
        """Why a request that is being prepared ends: its own error, or what cancelled all of them."""
        return self._why or error if isinstance(error, asyncio.CancelledError) else error

    # ---- asyncio thread ----

    async def end_requests(self, error: ServeError) -> None:
        """Ends every request: those that are being prepared, waiting and running ones."""
        self._why = error
        for task in list(self._tasks):
            task.cancel()
        for session in list(self._sessions.values()):
            session.fail(error)
        await asyncio.sleep(0)  # the cancelled tasks answer with the reason

    async def close(self, error: ServeError) -> None:
        """Ends every request, and refuses those that come."""
        self._door.close(error)
        await self.end_requests(error)

    def stage_lost(self, error: ServeError) -> None:
        """What is lost only a restart brings back: this process ends."""
        log_fault(logger, str(error), error)
        task = self._thread.loop.create_task(self.close(error))
        task.add_done_callback(lambda _: self._thread.loop.call_later(DEATH_DELAY_S, self._die))

    def thread_lost(self, error: BaseException) -> None:
        """The asyncio thread cannot go on."""
        for session in list(self._sessions.values()):
            session.fail(_restart("server", error))
        time.sleep(DEATH_DELAY_S)
        self._die()

    # ---- frame loop thread ----

    def loop_lost(self, error: BaseException) -> None:
        """The frame loop cannot go on."""
        with contextlib.suppress(TimeoutError):  # the other thread may be dead too
            self._thread.run(self.close(_restart("engine", error))).result(DEATH_DELAY_S)
        time.sleep(DEATH_DELAY_S)
        self._die()


def _restart(part: str, error: BaseException) -> EngineFault:
    return EngineFault(part, f"failed ({kind(error)})", "the server restarts: send the request again")
