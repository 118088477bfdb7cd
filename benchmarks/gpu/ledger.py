"""What a bench has found so far, on disk and on the screen as it is found: whatever ends the run loses nothing."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks import Check, explained
from benchmarks.gpu.floor import Floor
from benchmarks.gpu.measure import Measured, line, record, table
from benchmarks.record import save


@dataclass(frozen=True, slots=True)
class Fact:
    """A number or text that is no row; the last one of a name stands. ``told``: printed too."""

    name: str
    value: Any
    told: bool = True


Item = Measured | Check | Fact


def say(text: str) -> None:
    """Progress, at once."""
    print(text, flush=True)


class Ledger:
    """The result, written anew after everything that happens.

    Args:
        result: what is known before the first part.
        path: of the JSON file.
        ends: second of ``time.monotonic`` after which nothing new begins.
    """

    def __init__(self, result: dict[str, Any], path: Path, ends: float = math.inf) -> None:
        self.floor: Floor | None = None
        self._path, self._ends, self._rows = path, ends, list[Measured]()
        self.result = result | {
            "passed": False, "finished": False, "rows": [], "checks": [], "errors": {}, "skipped": {}, "seconds": {},
            "running": None, "lost": None,
        }  # fmt: skip
        self.write()

    def set_floor(self, floor: Floor) -> None:
        """Rows from now on have percentages."""
        self.floor = floor
        self.result |= {
            "bandwidth": floor.bandwidth,
            "bandwidth_source": floor.source,
            "copy_bandwidth": floor.copy_bandwidth,
            "peak_flops": floor.peak_flops,
        }
        copied = f", a copy here {floor.copy_bandwidth / 1e12:.3g} TB/s" if floor.copy_bandwidth else ""
        say(f"floor: {floor.bandwidth / 1e12:.3g} TB/s, {floor.source}{copied}")

    def run(self, part: str, work: Callable[[], Iterable[Item]]) -> bool:
        """Takes what a part finds, until the time is over; False when it failed, which is kept under its name."""
        if self._late():
            self.result["skipped"][part] = "the time was over before it began"
            self.write()
            return True
        self.result["running"] = part  # where a run that is killed was
        self.write()
        say(f"== {part}")
        began, taken = time.monotonic(), 0
        try:
            for item in work():
                self._take(item)
                taken += 1
                if self._late():
                    self.result["skipped"][part] = f"the time was over after {taken} of its results"
                    break
        except Exception as error:  # whatever it was, the other parts go on
            traceback.print_exc()
            self.result["errors"][part] = {"type": type(error).__name__, "message": explained(error)}
            say(f"FAIL  {part}: {explained(error)}")
        self.result["seconds"][part] = round(time.monotonic() - began, 1)
        self.result["running"] = None
        self.write()
        return part not in self.result["errors"]

    def lose(self, part: str) -> None:
        """Nothing more can run in this process after a part."""
        self.result["lost"] = part
        say(f"the device is lost to this process after {part}: what is left needs another")

    def finish(self) -> None:
        """Passed: no check and no part failed."""
        passed = all(check["passed"] for check in self.result["checks"])
        self.result |= {"finished": True, "passed": passed and not self.result["errors"]}
        self.write()
        if self._rows:
            say(table(self._rows, self.floor))
        for part, why in self.result["skipped"].items():
            say(f"skipped: {part}, {why}")

    def write(self) -> None:
        """Replaces the file as a whole."""
        save(self.result, self._path, indent=1)

    def _late(self) -> bool:
        return time.monotonic() >= self._ends

    def _take(self, item: Item) -> None:
        if isinstance(item, Measured):
            self._rows.append(item)
            self.result["rows"].append(record(item, self.floor))
            say(line(item, self.floor))
        elif isinstance(item, Check):
            found = item.error if math.isfinite(item.error) else None
            self.result["checks"].append(
                {"name": item.name, "error": found, "bound": item.bound, "passed": item.passed, "problem": item.problem}
            )
            how = item.problem or f"{item.error:.2e} ({item.bound:.0e})"
            say(f"{'pass' if item.passed else 'FAIL'}  {item.name}: {how}")
        else:
            self.result[item.name] = item.value
            if item.told:
                say(f"{item.name.replace('_', ' ')}: {item.value}")
        self.write()
