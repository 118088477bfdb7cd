"""One process group: started, looked at, ended. Linux only; knows nothing of Triton.

A tritonserver and its Python stubs are one group, so that nothing of it can be left behind. The
child dies with the thread that started it (PR_SET_PDEATHSIG), so start it from the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

# Becomes the command, once the kernel knows that it dies with its parent (PR_SET_PDEATHSIG is 1). No `preexec_fn`: for
# one Python forks, and the fork handlers of gRPC in our users' processes abort the child now and then.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):  # the parent died before that
    sys.exit(1)
os.execvp(sys.argv[2], sys.argv[2:])
"""
POLL_S = 0.02
# In the background of a shell that ends at once, so that it has no parent here.
GUARD = '(while kill -0 "$1"; do sleep 0.5; done; kill -9 "-$1") </dev/null >/dev/null 2>&1 &'
DEAD_STATES = ("Z", "X")
STOPPED_STATES = ("T", "t")


@dataclass(frozen=True, slots=True)
class Child:
    """One living process below another: its pid, its command line, whether a signal or a debugger has stopped it."""

    pid: int
    command: tuple[str, ...]
    stopped: bool = False


def start_group(command: Sequence[str], environment: Mapping[str, str], output: IO[bytes] | None) -> subprocess.Popen:
    """Starts a command as the leader of a new process group that dies with this process."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), *command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT if output is not None else None,
        start_new_session=True,
    )


def guard_group(leader: subprocess.Popen) -> None:
    """Has the group killed when its leader is gone, even if this process is gone too.

    A stub whose tritonserver was killed waits for it for ever, often with the GIL: nothing in it can notice.
    """
    subprocess.run(["sh", "-c", GUARD, "guard", str(leader.pid)], start_new_session=True, check=False)


def children(pid: int) -> list[Child]:
    """The living direct children of a process; empty when it is gone."""
    return [
        Child(found, _command(found), state in STOPPED_STATES) for found, parent, _, state in _living() if parent == pid
    ]


def members(group: int) -> list[int]:
    """The living processes of a process group. Zombies count as dead: in a container they may never be reaped."""
    return [pid for pid, _, of, _ in _living() if of == group]


def _living() -> Iterator[tuple[int, int, int, str]]:
    """Process, parent, group and state of everything that lives."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in brackets may hold anything, so count from the last bracket.
            state, parent, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):  # it ended meanwhile
            continue
        if state not in DEAD_STATES:
            yield int(entry.name), int(parent), int(group), state


def _command(pid: int) -> tuple[str, ...]:
    try:
        return tuple(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0"))
    except OSError:
        return ()


def end_group(leader: subprocess.Popen, patience: float) -> None:
    """Asks the leader to stop, waits so many seconds, then kills what is left of its group."""
    if leader.poll() is None:
        leader.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(patience)
    kill_group(leader)


def kill_group(leader: subprocess.Popen, patience: float = 5.0) -> None:
    """Kills every process of the group and waits until they are gone."""
    # The group's id is the leader's pid, and stays reserved while any member is left.
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, signal.SIGKILL)
        leader.poll()
        if not members(leader.pid):
            break
        time.sleep(POLL_S)
    leader.wait()
