"""One run of tritonserver: started, its models loaded, watched, ended, swept up behind.

The supervisor makes one run after another. Everything waits in small steps and asks `stopping` in
between, so that a signal is obeyed while models load.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

from runtime.run_folder import RunFolder
from runtime.supervisor import shared_memory
from runtime.supervisor.access import new_key
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.command import command, environment, read_options
from runtime.supervisor.config import LOAD_ORDER, PUBLIC_MODEL, ServerConfig
from runtime.supervisor.errors import StartFailed
from runtime.supervisor.flag import Flag
from runtime.supervisor.hide_keys import hide_arguments
from runtime.supervisor.load_watch import LoadWatch
from runtime.supervisor.process import children, end_group, guard_group, kill_group, start_group
from runtime.supervisor.repository import RepositoryApi
from runtime.supervisor.watch import SETTLE_S, Watch
from runtime.tritonserver.stage_key import KEY_VARIABLE

END_S = 3.0  # for the model to end what the grace period left
LIVE_S = 60.0  # an empty tritonserver answers within seconds; a slow disk gets a minute

logger = logging.getLogger(__name__)


class StopRequested(Exception):
    """A stop was asked for while the server was starting."""


class ServerRun:
    """One tritonserver process group.

    Args:
        output: file for the server's output; None leaves it on our standard error.
        stopping: set when the supervisor is asked to stop.
    """

    def __init__(
        self,
        config: ServerConfig,
        install: TritonInstall,
        run: RunFolder,
        output: IO[bytes] | None,
        stopping: Flag,
    ) -> None:
        self._config, self._run, self._stopping = config, run, stopping
        self._admin_key = config.access.admin_key()
        self._api = RepositoryApi(config.addresses.http, self._admin_key)
        options = read_options(config)
        run.reset()
        prefix = shared_memory.new_prefix(run.path)
        line = command(config, install, options, prefix, self._admin_key)
        variables = {**environment(install, options), KEY_VARIABLE: new_key()}
        self._server = start_group(line, variables, output)
        try:
            guard_group(self._server)
            self.watch = Watch(self._server, run, config.patience.heartbeat, answers=self._api.live)
            self._loads = LoadWatch(lambda: children(self._server.pid), self._api.ready)
        except BaseException:  # nothing else knows of the group yet, and it holds the ports
            self.end(gracefully=False)
            raise
        logger.info("tritonserver started, process %d", self._server.pid)

    def load(self) -> None:
        """Loads the models in order; returns once the public model has answered its warm-up.

        Raises:
            StartFailed: the server ended, refused a model or took too long.
            StopRequested: the supervisor was asked to stop.
        """
        self._wait_live()
        if not hide_arguments(self._server.pid, (self._admin_key, self._config.access.token())):
            logger.warning("WARNING: this system lets every user read the keys in the list of processes")
        loaded: list[str] = []
        for stage in LOAD_ORDER:
            names = [name for name in stage if (self._config.repository / name).is_dir()]
            if stage == (PUBLIC_MODEL,) and not names:
                raise StartFailed(
                    PUBLIC_MODEL, f"is not in {self._config.repository}", "run `make build-engines` again"
                )
            self._load_together([name for name in names if not self._api.ready(name)])
            loaded += names
        python = [name for name in loaded if any((self._config.repository / name).glob("*/model.py"))]
        self.watch.expect_stubs(python)

    def drain(self, hurry: Callable[[], bool]) -> None:
        """Has new requests refused and waits for the live ones until the grace period or `hurry` ends it.

        What is live then gets a typed error from the model, which must happen before tritonserver stops.
        """
        grace = self._config.patience.drain
        self._run.begin_drain(grace)
        logger.info("draining, %s live streams", self._run.live() or 0)
        if self._await_drained(grace, hurry):
            return
        self._run.begin_drain(0.0)
        if not self._await_drained(END_S, lambda: False):
            logger.warning("%s live streams did not end", self._run.live() or 0)

    def _await_drained(self, seconds: float, hurry: Callable[[], bool]) -> bool:
        """Whether nothing is live any more, or the server that could know is lost."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not hurry():
            if self._run.drained() or self.watch.loss() is not None:
                return True
            time.sleep(self._config.patience.poll)
        return False

    def end(self, gracefully: bool) -> None:
        """Ends the whole group and removes its shared memory."""
        if gracefully:
            end_group(self._server, self._config.patience.stop)
        else:
            kill_group(self._server)
        shared_memory.remove_regions(self._run.path)

    def _wait_live(self) -> None:
        deadline = time.monotonic() + LIVE_S
        while not self._api.live():
            self._check()
            if time.monotonic() > deadline:
                raise StartFailed("tritonserver", f"did not answer within {LIVE_S:g} s", "see the server's log")
            time.sleep(self._config.patience.poll)

    def _load_together(self, names: list[str]) -> None:
        # Daemon threads would be simpler, but a pool hands their exceptions over. A load that hangs
        # ends with the server, which the caller kills.
        pool = ThreadPoolExecutor(max(1, len(names)))
        self._loads.begin()
        try:
            loads = {name: pool.submit(self._api.load, name, self._config.patience.load) for name in names}
            for name, load in loads.items():
                self._await(name, load)
                logger.info("loaded %s", name)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _await(self, name: str, load: Future[None]) -> None:
        while not load.done():
            self._check(f"loading {name}")
            loss = self._loads.loss()
            if loss is not None and not load.done():
                raise StartFailed("tritonserver", loss, "see the server's log")
            time.sleep(self._config.patience.poll)
        if load.exception() is not None:  # a server that crashed says less of itself than how it ended
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(SETTLE_S)
            self._check(f"loading {name}")
        load.result()

    def _check(self, doing: str = "starting") -> None:
        if self._stopping.is_set():
            raise StopRequested
        loss = self.watch.loss_of_server()
        if loss is not None:
            raise StartFailed("tritonserver", f"{loss} while {doing}", "see the server's log")
