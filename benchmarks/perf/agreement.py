"""Do perf_analyzer and our generator see the same server? Both send the same load in turns, so that what else
the machine does meanwhile meets both alike."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.perf.analyzer import Point, analyzed
from benchmarks.perf.analyzer_install import Analyzer
from benchmarks.perf.level import level
from benchmarks.perf.load import LoadSpec, loaded
from benchmarks.perf.outcome import Outcome
from client.access import OPEN, Access

TOLERANCE = 0.10  # of the first-audio p50
NAMES = ("perf_analyzer", "load")


@dataclass(slots=True)
class Side:
    """What one of the two saw over all rounds."""

    outcomes: list[Outcome] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, found: tuple[Sequence[Outcome], float]) -> None:
        """Takes one round."""
        self.outcomes += found[0]
        self.seconds += found[1]


def compare(
    analyzer: Analyzer,
    url: str,
    clips: list[np.ndarray],
    point: Point,
    requests: int,
    rounds: int,
    parameters: Mapping[str, Any],
    access: Access = OPEN,
) -> dict[str, Any]:
    """Both levels over `rounds` turns of each, and the ratio of their first-audio medians (ours to theirs)."""
    theirs, ours = Side(), Side()
    per_round = -(-requests // rounds)
    for number in range(rounds):
        spec = LoadSpec(point.kind, point.value, per_round, all_outputs=True, seed=number)
        turns = [
            lambda: theirs.add(analyzed(analyzer, url, clips, point, per_round, parameters, access)),
            lambda spec=spec: ours.add(asyncio.run(loaded(url, clips, spec, parameters, access=access))),  # type: ignore[misc]
        ]
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn()
    levels = {
        # Arrivals would count the other's turns as pauses.
        name: level(point.kind, point.value, side.outcomes, side.seconds, parameters) | {"arrivals_per_s": None}
        for name, side in zip(NAMES, (theirs, ours), strict=True)
    }
    medians = [levels[name]["first_audio_ms"]["p50"] for name in NAMES]
    ratio = round(medians[1] / medians[0], 4) if all(medians) else None
    agree = ratio is not None and abs(ratio - 1) <= TOLERANCE
    return {"load": levels[NAMES[0]]["load"], "ratio": ratio, "agree": agree, "rounds": rounds, "levels": levels}
