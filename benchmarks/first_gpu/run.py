"""A plan from its first step to its last, within a budget; what is found is on disk after every step."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.first_gpu.plan import Step
from benchmarks.first_gpu.processes import Ended, run_parts
from benchmarks.first_gpu.rest import read_result, rest_of
from benchmarks.record import save

RESULT, LOG = "first_gpu.json", "first_gpu.log"
LEAST_SHARE = 0.5  # of a step's usual time: with less left it does not begin
MOST_PROCESSES = 4  # of one bench: a device that is lost again and again is not worth the time


def budget(steps: Sequence[Step], seconds: float) -> str:
    """A table for people: when each step begins, what it takes, what it may take."""
    lines, begins = [f"{'step':14} {'begins':>7} {'usual':>7} {'limit':>7}  if it fails"], 0.0
    for step in steps:
        lines.append(f"{step.name:14} {begins:7.0f} {step.usual_s:7.0f} {step.limit_s:7.0f}  {step.if_it_fails}")
        begins += step.usual_s
    most = sum(step.limit_s for step in steps)
    whole = f"usual {begins:.0f} s, at most {most:.0f} s of {seconds:.0f} s; reserve {seconds - begins:.0f} s"
    return "\n".join([*lines, whole])


class FirstRun:
    """Runs a plan.

    Args:
        root: of the project.
        out: folder of the results: few files, none in folders below.
        environment: of all parts.
    """

    def __init__(self, root: Path, out: Path, environment: Mapping[str, str]) -> None:
        self._root, self._out, self._environment = root, out, environment
        self.result: dict[str, Any] = {"tool": "first_gpu", "passed": False, "finished": False, "steps": {}}

    def run(self, steps: Sequence[Step], seconds: float) -> bool:
        """Whether everything ran and passed. Later steps get what time earlier ones left."""
        self._out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        self.result["budget_s"] = seconds
        self._write()
        for step in steps:
            self._step(step, began + seconds)
            self._write()
        taken = time.monotonic() - began
        passed = all(step["passed"] for step in self.result["steps"].values())
        self.result |= {"finished": True, "passed": passed, "seconds": round(taken, 1)}
        self._write()
        print(f"{'passed' if passed else 'FAILED'}: {taken:.0f} s of {seconds:.0f} s; {self._out / RESULT}", flush=True)
        return passed

    def _step(self, step: Step, ends: float) -> None:
        left, missing = ends - time.monotonic(), step.missing(self._environment)
        if missing or left < LEAST_SHARE * step.usual_s:
            why = f"needs {' and '.join(missing)}" if missing else f"{max(0, left):.0f} s were left"
            self.result["steps"][step.name] = {"passed": False, "skipped": why, "parts": []}
            print(f"skip  {step.name}: {why}", flush=True)
            return
        print(f"== {step.name}, at most {min(left, step.limit_s):.0f} s", flush=True)
        began = time.monotonic()
        found = self._parts(step, min(ends, began + step.limit_s))
        known = {"passed": all(one.passed for one in found), "seconds": round(time.monotonic() - began, 1)}
        self.result["steps"][step.name] = known | {
            "if_it_fails": step.if_it_fails,
            "parts": [one.record() | {"found": read_result(self._out, one.part)} for one in found],
        }  # fmt: skip

    def _parts(self, step: Step, ends: float) -> list[Ended]:
        found = run_parts(step.parts, step.at_once, self._root, self._environment, ends)
        self._note(found)
        for number in range(2, 1 + MOST_PROCESSES):
            rest = rest_of(found[-1].part, read_result(self._out, found[-1].part), number)
            left = ends - time.monotonic()
            if rest is None or left <= 0:
                break
            again = replace(rest, limit_s=left, usual_s=min(rest.usual_s, left))
            found += run_parts([again], 1, self._root, self._environment, ends)
            self._note(found[-1:])
        return found

    def _note(self, found: Sequence[Ended]) -> None:
        with (self._out / LOG).open("a", encoding="utf-8") as log:
            for one in found:
                log.write(f"=== {one.part.name}: {' '.join(one.part.command)}\n{one.output}\n")
        for one in found:
            counts = ", ".join(f"{count} {kind}" for kind, count in one.counts.items())
            how = " ".join(text for text in (f"{one.seconds:.1f} s", one.problem, counts) if text)
            print(f"{'pass' if one.passed else 'FAIL'}  {one.part.name}: {how}", flush=True)

    def _write(self) -> None:
        save(self.result, self._out / RESULT, indent=1)
