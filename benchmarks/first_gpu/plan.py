"""Parts of a run in the order of their worth, each a process of its own under a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

CARD = "name,driver_version,memory.used,clocks.sm,temperature.gpu"


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Args:
        command: what is run, at the root of the project.
        limit_s: after so many seconds it is killed, with all that it started.
        usual_s: what it should take; an estimate until a run has shown it.
        counted: tests, of which some must have passed: on a GPU that torch does not see all are skipped.
        result: name of the JSON file that ``benchmarks.gpu`` writes there, empty for other commands.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    usual_s: float
    result: str = ""
    counted: bool = False

    def __post_init__(self) -> None:
        if not self.command or not 0 < self.usual_s <= self.limit_s:
            raise ValueError(f"part {self.name!r}: needs a command and 0 < usual_s <= limit_s")


@dataclass(frozen=True, slots=True)
class Step:
    """Parts that run side by side, ``at_once`` of them, under one limit.

    Args:
        if_it_fails: what to do then.
        wanted: names of variables of the environment without which the step is left out.
    """

    name: str
    parts: tuple[Part, ...]
    if_it_fails: str
    at_once: int = 1
    wanted: tuple[str, ...] = field(default=())

    @property
    def limit_s(self) -> float:
        """Of all parts together: that of the longest."""
        return max(part.limit_s for part in self.parts)

    @property
    def usual_s(self) -> float:
        """Of all parts together."""
        longest, work = max(part.usual_s for part in self.parts), sum(part.usual_s for part in self.parts)
        return min(self.limit_s, max(longest, work / self.at_once))

    def missing(self, environment: Mapping[str, str]) -> list[str]:
        """Variables that are not set."""
        return [name for name in self.wanted if not environment.get(name)]


def single(name: str, command: tuple[str, ...], limit_s: float, usual_s: float, fails: str, result: str = "") -> Step:
    """A step of one part."""
    return Step(name, (Part(name, command, limit_s, usual_s, result),), fails, at_once=1)


def stretched(step: Step, factor: float) -> Step:
    """The same with all limits longer, for a slow machine."""
    parts = tuple(replace(part, limit_s=part.limit_s * factor, usual_s=part.usual_s * factor) for part in step.parts)
    return replace(step, parts=parts)
