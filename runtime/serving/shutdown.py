"""How everything ends at once: a drain, a stop, a lost thread or stage."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from runtime.errors import Draining, EngineFault, ServeError
from runtime.frames.loop import StreamFrame
from runtime.logs import kind, log_fault
from runtime.scheduling.stream import FAULT, Stream
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.door import Door, Incoming
from runtime.serving.response import Reply, Session
from runtime.serving.stage_guard import Trouble

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
        patience_s: engines that give every stream nothing finite for longer need such a start.
    """

    def __init__(
        self,
        thread: AsyncioThread,
        door: Door,
        sessions: Mapping[Stream, Session],
        tasks: Mapping[asyncio.Task[None], Incoming],
        die: Callable[[], None],
        patience_s: float,
    ) -> None:
        self._thread, self._door, self._sessions, self._tasks, self._die = thread, door, sessions, tasks, die
        self._why: ServeError | None = None
        self._trouble = Trouble(patience_s)

    def reason(self, error: BaseException) -> BaseException:
        """Why a request that is being prepared ends: what cancelled all of them, or its own error or cancel."""
        return self._why or error if isinstance(error, asyncio.CancelledError) else error

    # ---- asyncio thread ----

    async def out_of_time(self) -> None:
        """The grace period of a drain is over."""
        await self._end_requests(Draining("server", "stopped before this answer was complete", "send it again"))

    async def stop(self) -> None:
        """This service is to end."""
        await self._close(Draining("server", "is stopping", "send the request again"))

    async def _end_requests(self, error: ServeError) -> None:
        """Ends every request: those that are being prepared, waiting and running ones."""
        self._why = error
        for task in list(self._tasks):
            task.cancel()
        _fail_each(list(self._sessions.values()), error)
        await asyncio.sleep(0)  # the cancelled tasks answer with the reason

    async def _close(self, error: ServeError) -> None:
        """Ends every request, and refuses those that come."""
        self._door.close(error)
        await self._end_requests(error)

    def answer_stuck(self) -> None:
        """The end of an answer can never be sent; its client hears of it when this process ends."""
        self.stage_lost(EngineFault("server", "could not end another answer", "it restarts: send the request again"))

    def stage_lost(self, error: ServeError) -> None:
        """What is lost only a restart brings back: this process ends."""
        log_fault(logger, str(error), error)
        task = self._thread.loop.create_task(self._close(error))
        task.add_done_callback(lambda _: self._thread.loop.call_later(DEATH_DELAY_S, self._die))

    def judge(self, frames: Sequence[StreamFrame]) -> None:
        """Counts the steps in a row that gave nobody anything finite; with too many of them the engines are broken."""
        if any(item.frame.finish != FAULT for item in frames):
            self._trouble.over()
        elif frames and self._trouble.is_final():
            problem = "gave no stream anything finite"
            self.stage_lost(EngineFault("engine", problem, "the server restarts: send the request again"))

    def thread_lost(self, error: BaseException) -> None:
        """The asyncio thread cannot go on: what a session frees at its end needs the loop, an answer does not."""
        lost = _restart("server", error)
        self._door.close(lost)
        replies: list[Reply] = [session.reply for session in self._sessions.values()]
        _fail_each(replies + [incoming.reply for task, incoming in self._tasks.items() if not task.done()], lost)
        time.sleep(DEATH_DELAY_S)
        self._die()

    # ---- frame loop thread ----

    def loop_lost(self, error: BaseException) -> None:
        """The frame loop cannot go on."""
        with contextlib.suppress(Exception):  # the other thread may be dead too
            self._thread.run(self._close(_restart("engine", error))).result(DEATH_DELAY_S)
        time.sleep(DEATH_DELAY_S)
        self._die()


def _fail_each(failing: Sequence[Session | Reply], error: ServeError) -> None:
    for one in failing:
        try:
            one.fail(error)
        except Exception as problem:  # of one: the others, and this process, still end
            log_fault(logger, "a request could not be ended", problem)


def _restart(part: str, error: BaseException) -> EngineFault:
    return EngineFault(part, f"failed ({kind(error)})", "the server restarts: send the request again")
