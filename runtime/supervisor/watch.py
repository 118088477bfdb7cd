"""Is the server still whole? Triton does not notice a dead stub or a loop that hangs; this does."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterable

from runtime.run_folder import RunFolder
from runtime.supervisor.process import Child, children

STUB_NAME = "triton_python_backend_stub"
PROBE_EVERY_S = 5.0
SETTLE_S = 0.5  # for a server that is on its way out


class Watch:
    """Looks at one run of a server: its process, its stubs and the frame loop's heartbeat.

    Args:
        heartbeat_s: how long the heartbeat may stand still, and the server may give no answer.
        answers: whether the server answers now; by default not asked.
        clock: monotonic seconds. The file's own time is only compared with itself, so that neither a
            corrected clock nor a machine that slept looks like a dead loop.
    """

    def __init__(
        self,
        server: subprocess.Popen,
        run: RunFolder,
        heartbeat_s: float,
        clock: Callable[[], float] = time.monotonic,
        answers: Callable[[], bool] = lambda: True,
    ) -> None:
        self._answers = answers
        self._answered = self._next_probe = clock()
        self._server, self._run, self._heartbeat_s, self._clock = server, run, heartbeat_s, clock
        self._stubs: dict[int, Child] = {}
        self._ran: dict[int, float] = {}  # when each stub was last seen not stopped
        self._expected: frozenset[str] = frozenset()
        self._beat: int | None = None
        self._beat_seen = clock()

    def expect_stubs(self, models: Iterable[str]) -> None:
        """From now on each of these models must have a stub."""
        self._expected = frozenset(models)
        self._answered = self._clock()

    def loss(self) -> str | None:
        """What was lost, in words; None while everything lives."""
        lost = self._lost_stub() or self._lost_heartbeat() or self._lost_answers()
        if lost is not None:
            # A dying server takes its stubs along, and they can be seen to go first.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(SETTLE_S)
        return self.loss_of_server() or lost

    def loss_of_server(self) -> str | None:
        """How the server process itself ended; None while it lives."""
        code = self._server.poll()
        return None if code is None else f"tritonserver {exit_words(code)}"

    def _lost_stub(self) -> str | None:
        living = {child.pid: child for child in children(self._server.pid) if is_stub(child)}
        gone = [child for pid, child in self._stubs.items() if pid not in living]
        self._stubs |= living
        if gone:
            return f"stub of {model_of(gone[0])} (process {gone[0].pid}) died"
        # A stub that died before it was first seen is known by the lack of its model.
        missing = self._expected - {model_of(child) for child in living.values()}
        return f"stub of {min(missing)} died" if missing else self._stopped_stub(living.values())

    def _stopped_stub(self, living: Iterable[Child]) -> str | None:
        """Triton refuses all calls of a stub that is stopped, and waits for ever for it to go on."""
        now = self._clock()
        for child in living:
            if not child.stopped:
                self._ran[child.pid] = now
            elif (still := now - self._ran.setdefault(child.pid, now)) > self._heartbeat_s:
                return f"stub of {model_of(child)} (process {child.pid}) was stopped for {still:.1f} s"
        return None

    def _lost_heartbeat(self) -> str | None:
        beat, now = self._run.heartbeat(), self._clock()
        if beat != self._beat:
            self._beat, self._beat_seen = beat, now
        still = now - self._beat_seen
        if beat is None or still <= self._heartbeat_s:
            return None
        return f"heartbeat of the frame loop stood still for {still:.1f} s"

    def _lost_answers(self) -> str | None:
        """A server that hangs itself: its stubs and their heartbeat go on."""
        if not self._expected or self._clock() < self._next_probe:
            return None
        began = self._clock()
        if self._answers():
            self._answered = began
        self._next_probe = self._clock() + min(PROBE_EVERY_S, self._heartbeat_s / 2)
        silent = self._clock() - self._answered
        return f"tritonserver gave no answer for {silent:.1f} s" if silent > self._heartbeat_s else None


def exit_words(code: int) -> str:
    """An exit code of `subprocess` in words."""
    return f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"


def is_stub(child: Child) -> bool:
    """Whether a child is the Python backend's stub."""
    return bool(child.command) and child.command[0].endswith(STUB_NAME)


def model_of(stub: Child) -> str:
    """The model that a stub serves: its first argument is `<repository>/<model>/<version>/model.py`."""
    parts = stub.command[1].split("/") if len(stub.command) > 1 else []
    return parts[-3] if len(parts) >= 3 else "an unknown model"
