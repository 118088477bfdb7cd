"""A supervised server as a context manager, for tests, the demo and benchmarks.

It runs `python -m runtime.supervisor` as a child, so what is tested is what `make serve` runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from runtime.supervisor.config import Addresses
from runtime.supervisor.errors import StartFailed
from runtime.supervisor.ports import free_addresses
from runtime.supervisor.process import start_group
from runtime.supervisor.repository import RepositoryApi

READY_MARK = "ready: "
LOG_TAIL_LINES = 60
POLL_S = 0.05


class ServerProcess:
    """One supervised server on a rendered folder.

    Args:
        out: the rendered folder.
        addresses: where to listen; default: free ports on loopback.
        options: more options of `python -m runtime.supervisor`, for example `("--drain", "2")`.
        start_timeout: seconds until the first readiness.
        log_file: where supervisor and tritonserver write; default: a temporary file.

    Use it as a context manager, or call `start` and `stop`. When the block ends with an exception the
    end of the log is written to standard error.
    """

    def __init__(
        self,
        out: Path,
        addresses: Addresses | None = None,
        options: Sequence[str] = (),
        start_timeout: float = 300.0,
        log_file: Path | None = None,
    ) -> None:
        self.out, self.addresses = out, addresses or free_addresses()
        self._options, self._start_timeout = tuple(options), start_timeout
        self._scratch = tempfile.TemporaryDirectory(prefix="fun_audio_chat_")
        self.log_file = log_file or Path(self._scratch.name) / "server.log"
        self._process: subprocess.Popen | None = None
        self._api = RepositoryApi(self.addresses.http)

    @property
    def url(self) -> str:
        """host:port of the gRPC endpoint."""
        return self.addresses.grpc

    @property
    def pid(self) -> int:
        """Process id of the supervisor, also the id of its process group."""
        if self._process is None:
            raise RuntimeError("pid: the server was not started")
        return self._process.pid

    def start(self) -> ServerProcess:
        """Starts the supervisor and waits until the public model is ready.

        Raises:
            StartFailed: it ended or was not ready in time; the end of its log goes to standard error.
        """
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self._process = start_group(self._command(), {"PYTHONUNBUFFERED": "1"}, output)
        try:
            self.wait_ready(self._start_timeout)
        except StartFailed:
            self.kill()
            self._show_tail()
            raise
        return self

    def wait_ready(self, timeout: float, announcements: int = 1) -> None:
        """Waits until the server has announced itself so often, which counts restarts too."""
        deadline = time.monotonic() + timeout
        while self.log().count(f"\n{READY_MARK}") < announcements:
            code = self._process.poll() if self._process else None
            if code is not None:
                raise StartFailed("server", f"the supervisor exited with code {code}: {self.tail(1)}", "mend that")
            if time.monotonic() > deadline:
                raise StartFailed("server", f"not ready after {timeout:g} s: {self.tail(1)}", "see its log")
            time.sleep(POLL_S)

    def ready(self, model: str) -> bool:
        """Whether a model is ready now."""
        return self._api.ready(model)

    def stop(self, timeout: float = 60.0) -> int:
        """Stops gracefully and returns the supervisor's exit code; kills it after the timeout."""
        if self._process is None:
            return 0
        self._process.terminate()
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.returncode

    def kill(self) -> None:
        """Ends the supervisor at once; its server dies with it."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        """Everything written so far, preceded by a line break."""
        try:
            return "\n" + self.log_file.read_text("utf-8", errors="replace")
        except FileNotFoundError:
            return "\n"

    def tail(self, lines: int = LOG_TAIL_LINES) -> str:
        """The last lines of the log."""
        return "\n".join(self.log().splitlines()[-lines:])

    def __enter__(self) -> ServerProcess:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        code = self.stop()
        if kind is not None:
            self._show_tail(f" (exit code {code})")
        self._scratch.cleanup()

    def _show_tail(self, words: str = "") -> None:
        print(f"--- end of the server's log{words}\n{self.tail()}\n---", file=sys.stderr)

    def _command(self) -> list[str]:
        at = self.addresses
        ports = [f"--{name.replace('_', '-')}={port}" for name, port in at.ports().items()]
        program = [sys.executable, "-m", "runtime.supervisor", f"--out={self.out}", f"--host={at.host}"]
        return [*program, *ports, *self._options]
