"""An asyncio loop in a thread of its own, whose end is always noticed."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from runtime.faults import log_fault

logger = logging.getLogger(__name__)
Died = Callable[[BaseException], None]


class AioThread:
    """Runs callbacks and coroutines of other threads.

    Args:
        failed: told in this thread of an exception that ended the work given to ``start``; the loop still runs.
        lost: told in this thread of one that ended the loop itself.
    """

    def __init__(self, failed: Died, lost: Died) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_unhandled)
        self._failed, self._lost = failed, lost
        self._thread = threading.Thread(target=self._run, name="service", daemon=True)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Starts the thread with work that lasts as long as it does."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(work, self.loop).add_done_callback(self._ended)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Has a function called soon. Thread-safe."""
        self.loop.call_soon_threadsafe(function, *arguments)

    def wait(self, work: Coroutine[Any, Any, None], timeout_s: float | None = None) -> None:
        """Runs work and waits for it, in any other thread. Raises TimeoutError."""
        asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout_s)

    def stop(self) -> None:
        """Ends loop and thread."""
        self.call(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as error:  # the loop hands on what must end a process
            log_fault(logger, "the asyncio thread failed", error)
            self._lost(error)

    def _ended(self, work: Future[None]) -> None:
        if not work.cancelled() and (error := work.exception()) is not None:
            log_fault(logger, "the watch failed", error)
            self._failed(error)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Asyncio's own report would quote what the failed callback was given."""
    log_fault(logger, "an asyncio callback failed", context.get("exception") or RuntimeError())
