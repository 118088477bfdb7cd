"""Keeps one server alive: start, watch, restart after a loss, stop gracefully.

Triton cannot do this itself: it never notices a dead stub or a loop that hangs, and after SIGTERM its
models can no longer finish their answers.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO

from runtime.manifest import verify
from runtime.run_folder import RunFolder
from runtime.supervisor.access import exposure
from runtime.supervisor.bundle import TritonInstall, find_install
from runtime.supervisor.config import Addresses, ServerConfig
from runtime.supervisor.errors import ServerDown, StartFailed
from runtime.supervisor.flag import Flag
from runtime.supervisor.plain_paths import plain_paths
from runtime.supervisor.ports import check_free
from runtime.supervisor.server_run import ServerRun, StopRequested

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

logger = logging.getLogger(__name__)


class Supervisor:
    """Serves one rendered folder until it is told to stop. Run it in the main thread.

    Args:
        announce: called with the addresses whenever the server has become ready.
    """

    def __init__(self, config: ServerConfig, announce: Callable[[Addresses], None]) -> None:
        self._config, self._announce = config, announce
        self._stopping = Flag()
        self._hurry = False
        self._failures = 0
        self._was_ready = False
        self._ready_at: float | None = None  # this life; None until its models are loaded

    def run(self) -> None:
        """Returns after a graceful stop.

        Raises:
            ServeError: the folder does not fit, a port is taken, the first start failed, or the server
                was lost too often in too short a time.
        """
        if self._config.verify:
            verify(self._config.out)
        self._config.access.check_files()
        warning = exposure(self._config.addresses.host, self._config.access)
        if warning is not None:
            logger.warning("WARNING: %s: %s", self._config.addresses.host, warning)
        paths = plain_paths(self._config.out, find_install(named=self._config.triton))
        if paths.links is not None:
            logger.info("Triton's Python backend gets its paths by links in %s", paths.links)
        self._config = replace(self._config, out=paths.out)
        run = RunFolder(paths.out)
        run.acquire()
        try:
            check_free(self._config.addresses)
            with self._signals(), self._output() as output:
                self._lives(paths.install, run, output)
        finally:
            paths.remove()
            run.release()

    def _lives(self, install: TritonInstall, run: RunFolder, output: IO[bytes] | None) -> None:
        while not self._stopping.is_set():
            self._ready_at = None
            try:
                loss = self._run_once(install, run, output)
            except (StartFailed, OSError) as error:  # the second: a full disk, too many processes
                if not self._was_ready:  # what never worked will not work at the next try
                    raise
                loss = str(error)
            if loss is None:
                return
            if self._stopping.is_set():
                logger.error("lost while stopping: %s", loss)
                return
            self._count(loss)

    def _run_once(self, install: TritonInstall, folder: RunFolder, output: IO[bytes] | None) -> str | None:
        """One run of the server; returns what was lost, or None after a stop."""
        run = ServerRun(self._config, install, folder, output, self._stopping)
        gracefully = False
        try:
            run.load()
            self._was_ready, self._ready_at = True, time.monotonic()
            self._announce(self._config.addresses)
            loss = self._watch(run)
            if loss is None:
                gracefully = True
                run.drain(lambda: self._hurry)
            return loss
        except StopRequested:
            gracefully = True
            return None
        finally:
            run.end(gracefully)

    def _watch(self, run: ServerRun) -> str | None:
        while not self._stopping.wait(self._config.patience.poll):
            loss = run.watch.loss()
            if loss is not None:
                return loss
        return None

    def _count(self, loss: str) -> None:
        patience = self._config.patience
        # Without the time of loading, which may well be longer than ``quick``.
        lived = 0.0 if self._ready_at is None else time.monotonic() - self._ready_at
        self._failures = self._failures + 1 if lived < patience.quick else 1
        if self._failures >= patience.quick_failures:
            raise ServerDown(
                "tritonserver", f"was lost {self._failures} times in a row, last: {loss}", "see the server's log"
            )
        delay = patience.delay(self._failures)
        logger.error("lost: %s; restarting in %.1f s", loss, delay)
        self._stopping.wait(delay)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        numbers = list(STOP_SIGNALS)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup asks to go on without a terminal
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        self._hurry = self._stopping.is_set()  # a second signal ends the wait for live streams
        self._stopping.set()

    @contextlib.contextmanager
    def _output(self) -> Iterator[IO[bytes] | None]:
        if self._config.log_file is None:
            yield None
            return
        self._config.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self._config.log_file.open("ab") as file:
            yield file
