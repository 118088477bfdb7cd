"""The supervisor's decisions, without a tritonserver: what is tried again, when it gives up, how it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtime.run_folder import RunFolder
from runtime.supervisor import server_run as run_module
from runtime.supervisor import supervisor as supervisor_module
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.config import Patience, ServerConfig
from runtime.supervisor.errors import ServerDown, StartFailed
from runtime.supervisor.flag import Flag
from runtime.supervisor.ports import free_addresses
from runtime.supervisor.process import members, start_group
from runtime.supervisor.server_run import ServerRun
from runtime.supervisor.supervisor import Supervisor

QUICK_S = 0.2
INSTALL = TritonInstall(("tritonserver",), Path("backends"))


class Clock:
    """The supervisor's clock, which goes as the test says."""

    now = 0.0

    def monotonic(self):
        return self.now


CLOCK = Clock()


class FakeRun:
    """A life without a server, which loads, is lost and drains as the test says."""

    def __init__(self, load=lambda: None, loss=lambda: "it died", drain=lambda: None):
        self.load, self.watch, self._drain = load, SimpleNamespace(loss=loss), drain
        self.ended = []  # gracefully?

    def drain(self, hurry):
        self._drain()

    def end(self, gracefully):
        self.ended.append(gracefully)


def slow_load():
    CLOCK.now += 2 * QUICK_S


def slow_failure():
    slow_load()
    raise StartFailed("tritonserver", "ended while starting", "see the server's log")


def lost_late():
    """A loss after a long life: of the poll that finds it."""
    CLOCK.now += 2 * QUICK_S
    return "it died late"


def failing(number):
    def fail():
        raise OSError(number, os.strerror(number))

    return fail


def stop():
    """A stop is asked for while all is well."""
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def supervise(monkeypatch, tmp_path):
    """Runs a supervisor through the given lives; one more than given is a failure. Returns the announcements."""

    def run(*lives, **patience):
        left, announced = list(lives), []
        monkeypatch.setattr(supervisor_module, "time", CLOCK)
        monkeypatch.setattr(supervisor_module, "find_install", lambda named: INSTALL)
        monkeypatch.setattr(supervisor_module, "ServerRun", lambda *_: left.pop(0))
        times = Patience(**{"poll": 0.01, "backoff": 0.01, "quick": QUICK_S, **patience})
        config = ServerConfig(tmp_path, free_addresses(), times, verify=False)
        Supervisor(config, announced.append).run()
        assert not left
        return announced

    return run


def test_the_time_of_loading_hides_no_quick_failure(supervise):
    lives = [FakeRun(slow_load), FakeRun(slow_load, lost_late), FakeRun(slow_load)]
    with pytest.raises(ServerDown, match="was lost 2 times in a row, last: it died;"):
        supervise(*lives, quick_failures=2)
    assert [life.ended for life in lives] == [[False]] * 3


def test_a_life_that_was_never_ready_is_a_quick_failure(supervise):
    with pytest.raises(ServerDown, match=r"was lost 2 times in a row, last: .*ended while starting"):
        supervise(FakeRun(loss=lost_late), FakeRun(slow_failure), quick_failures=2)


def test_a_server_that_was_ready_is_restarted_after_any_error(supervise):
    broken = FakeRun(loss=failing(errno.EMFILE))
    last = FakeRun(loss=stop)
    assert len(supervise(broken, last)) == 2
    assert broken.ended == [False] and last.ended == [True]


def test_an_error_during_a_drain_is_a_stop_all_the_same(supervise):
    life = FakeRun(loss=stop, drain=failing(errno.ENOSPC))
    supervise(life, quick_failures=1)
    assert life.ended == [True]


def test_an_announcement_that_nobody_reads_is_no_failure():
    read, write = os.pipe()
    os.close(read)
    program = "from runtime.supervisor.__main__ import announce; from runtime.supervisor.config import Addresses; "
    try:
        command = [sys.executable, "-c", program + "announce(Addresses())"]
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_group_that_cannot_be_guarded_is_not_left_behind(tmp_path, monkeypatch):
    run, started = RunFolder(tmp_path), []
    run.acquire()
    guard = iter([failing(errno.EAGAIN)])
    monkeypatch.setattr(run_module, "command", lambda *_: ["sleep", "60"])
    monkeypatch.setattr(run_module, "environment", lambda *_: {})
    monkeypatch.setattr(run_module, "start_group", lambda *given: started.append(start_group(*given)) or started[0])
    monkeypatch.setattr(run_module, "guard_group", lambda _: next(guard)())
    try:
        with pytest.raises(BlockingIOError, match=os.strerror(errno.EAGAIN)):
            ServerRun(ServerConfig(tmp_path), INSTALL, run, None, Flag())
        assert started[0].returncode == -signal.SIGKILL and not members(started[0].pid)
        assert not (run.path / "shm_prefix").exists()
    finally:
        started[0].kill()
        started[0].wait()
        run.release()
