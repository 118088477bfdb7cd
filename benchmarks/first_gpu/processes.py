"""Runs parts as processes of their own: each under its limit, with all that it started, its output kept."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from benchmarks.first_gpu.plan import Part

TAIL = 2000  # characters of output in the result
POLL_S = 0.2
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed)\b")
NAMED = re.compile(r"^(FAILED .*|FAIL  .*|ERROR .*|.*[Ee]rror: .*)$", re.MULTILINE)
MOST_NAMED, KILLED = 20, "killed at its limit"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a part ended. ``status``: of the process, None when it was killed at its limit or could not start."""

    part: Part
    status: int | None
    seconds: float
    problem: str
    output: str

    @property
    def passed(self) -> bool:
        """Whether it ended by itself and well; tests: and some ran."""
        return self.status == 0 and (not self.part.counted or self.counts.get("passed", 0) > 0)

    @property
    def counts(self) -> dict[str, int]:
        """What pytest counted."""
        return {kind: int(count) for count, kind in COUNTED.findall(self.output[-TAIL:])}

    def record(self) -> dict[str, object]:
        """For the result file."""
        return {
            "name": self.part.name, "command": list(self.part.command), "passed": self.passed, "status": self.status,
            "seconds": round(self.seconds, 1), "limit_s": round(self.part.limit_s, 1), "problem": self.problem,
            "counts": self.counts,
            "named": NAMED.findall(self.output)[:MOST_NAMED], "tail": self.output[-TAIL:],
        }  # fmt: skip


class Running:
    """A part that runs, in a process group of its own."""

    def __init__(self, part: Part, root: Path, environment: Mapping[str, str], ends: float) -> None:
        self.part, self._began = part, time.monotonic()
        self._ends = min(ends, self._began + part.limit_s)
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._problem, self._process = "", None
        try:
            self._process = subprocess.Popen(
                part.command, cwd=root, env=dict(environment), stdin=subprocess.DEVNULL, stdout=self._output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._problem = f"cannot start: {error}"

    def over(self) -> bool:
        """Whether it has ended; kills it when its time is over."""
        if self._process is None or self._process.poll() is not None:
            return True
        if time.monotonic() < self._ends:
            return False
        self._problem = KILLED
        self.kill()
        return True

    def kill(self) -> None:
        """Ends it and all that it started; a process that hangs in a driver's call knows no gentler way."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def ended(self) -> Ended:
        """What is left of it."""
        status = None if self._process is None or self._problem else self._process.poll()
        if status not in (None, 0):
            self._problem = f"ended with signal {-status}" if status < 0 else f"ended with status {status}"
        with self._output:
            self._output.seek(0)
            output = self._output.read().decode("utf-8", "replace")
        return Ended(self.part, status, time.monotonic() - self._began, self._problem, output)


def run_parts(
    parts: Sequence[Part], at_once: int, root: Path, environment: Mapping[str, str], ends: float
) -> list[Ended]:
    """Side by side, ``at_once`` of them; what has not begun at second ``ends`` of the monotonic clock never does."""
    waiting, running, found = list(parts), list[Running](), list[Ended]()
    try:
        while waiting or running:
            while waiting and len(running) < at_once and time.monotonic() < ends:
                running.append(Running(waiting.pop(0), root, environment, ends))
            over = [one for one in running if one.over()]
            running = [one for one in running if one not in over]
            found += [one.ended() for one in over]
            if time.monotonic() >= ends and not running:
                found += [Ended(part, None, 0.0, "no time was left", "") for part in waiting]
                break
            if not over:
                time.sleep(POLL_S)
    finally:
        for one in running:
            one.kill()
    return found
