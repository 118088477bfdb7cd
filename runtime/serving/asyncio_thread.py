"""A thread with an event loop that reports its own end."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from runtime.logs import log_fault

logger = logging.getLogger(__name__)


class AsyncioThread:
    """Runs coroutines and callbacks of one event loop.

    Args:
        failed: called, in the thread, with what ended the loop, and with what ended a task that must not end.
    """

    def __init__(self, name: str, failed: Callable[[BaseException], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(_unhandled)
        self._failed = failed
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ends loop and thread."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._thread.is_alive()

    def keep(self, endless: Coroutine[Any, Any, None]) -> None:
        """Runs a task without which the thread is of no use."""
        self.run(endless).add_done_callback(self._ended)

    def run(self, task: Coroutine[Any, Any, None]) -> Future[None]:
        """Runs a task; any thread may call this."""
        return asyncio.run_coroutine_threadsafe(task, self.loop)

    def _ended(self, task: Future[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log_fault(logger, "an endless task failed", error)
            self._failed(error)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        except BaseException as error:  # the loop hands on what must end a process
            log_fault(logger, "the asyncio thread failed", error)
            self._failed(error)


def _unhandled(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Asyncio's own report would quote what the failed callback was given."""
    log_fault(logger, "an asyncio callback failed", context.get("exception") or RuntimeError())
