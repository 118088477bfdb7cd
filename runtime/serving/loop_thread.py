"""The one thread that owns the frame loop. Everything enters and leaves it as messages."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from runtime.frames.loop import FrameLoop, StreamFrame
from runtime.logs import log_fault
from runtime.scheduling.stream import Stream

logger = logging.getLogger(__name__)


class LoopThread:
    """Runs steps while streams are live, sleeps otherwise.

    Args:
        loop: owned by this thread from ``start`` on.
        deliver: called in this thread with the frames of each step.
        fault: called in this thread with an exception that ended it; no step runs afterwards.
        heartbeat: file whose time stamp shows that the thread lives, or None.
        heartbeat_s: at most so many seconds between two touches.
        alive: whether the rest of the process lives too; else the heartbeat stands still.
        stepped: called in this thread with the seconds of each step and the streams that it advanced.
    """

    def __init__(
        self,
        loop: FrameLoop,
        deliver: Callable[[list[StreamFrame]], None],
        fault: Callable[[BaseException], None],
        heartbeat: Path | None = None,
        heartbeat_s: float = 1.0,
        stepped: Callable[[float, int], None] = lambda seconds, streams: None,
        alive: Callable[[], bool] = lambda: True,
    ) -> None:
        self.loop, self._deliver, self._fault = loop, deliver, fault
        self._heartbeat, self._heartbeat_s = heartbeat, heartbeat_s
        self._stepped, self._alive = stepped, alive
        self._commands: queue.SimpleQueue[tuple[str, Stream | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="frame-loop", daemon=True)
        self._next_beat = 0.0

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def add(self, stream: Stream) -> None:
        """Queues a stream; its frames arrive through ``deliver``."""
        self._commands.put(("add", stream))

    def cancel(self, stream: Stream) -> None:
        """Frees the stream at the next step boundary. Harmless for a finished stream."""
        self._commands.put(("cancel", stream))

    def stop(self) -> None:
        """Ends the thread after the step in progress."""
        self._commands.put(("stop", None))
        self._thread.join()

    def _run(self) -> None:
        wait = self._heartbeat_s
        try:
            while self._obey(wait):
                scheduler, began = self.loop.scheduler, time.perf_counter()
                busy = bool(scheduler.live or scheduler.waiting)  # now: the step empties the queue
                frames = self.loop.step()
                if busy:
                    self._stepped(time.perf_counter() - began, len(frames))
                if frames:
                    self._deliver(frames)
                live = scheduler.live or scheduler.waiting
                wait = 0.0 if live else self._heartbeat_s
        except Exception as error:
            log_fault(logger, "the frame loop failed", error)
            self._fault(error)

    def _obey(self, wait: float) -> bool:
        """Takes all commands, waiting so many seconds for the first; returns False on stop."""
        self._touch()
        try:
            while True:
                command, stream = self._commands.get(block=wait > 0, timeout=wait)
                wait = 0.0
                if stream is None:
                    return False
                if command == "add":
                    self.loop.add(stream)
                else:
                    self.loop.cancel(stream)
        except queue.Empty:
            return True

    def _touch(self) -> None:
        if self._heartbeat is not None and time.monotonic() >= self._next_beat and self._alive():
            self._next_beat = time.monotonic() + self._heartbeat_s
            self._heartbeat.touch()
