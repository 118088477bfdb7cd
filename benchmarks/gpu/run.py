"""A bench: its parts one after another, each on its own."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.gpu.checks import COMPARISONS, lost
from benchmarks.gpu.lab import Lab
from benchmarks.gpu.ledger import Fact, Item, Ledger
from benchmarks.gpu.measure import card, floor_of
from benchmarks.gpu.naive import baseline
from benchmarks.gpu.parts import ASKED_FOR, PARTS, PROFILES, SOUND
from builders.released import full, tiny
from runtime.graphs.executor import exact_sums

TOOL = "bench_gpu"  # marks its results


def chosen(given: argparse.Namespace) -> list[str]:
    """Names of the parts that the command line asks for, in their order.

    Raises:
        ValueError: there is no such part or comparison.
    """
    unknown = set(given.parts or ()) - set(PARTS)
    if unknown:
        raise ValueError(f"--parts: {', '.join(sorted(unknown))}: not among {', '.join(PARTS)}")
    strange = set(given.comparisons or ()) - set(COMPARISONS)
    if strange:
        raise ValueError(f"--comparisons: {', '.join(sorted(strange))}: not among {', '.join(COMPARISONS)}")
    left_out = (set(SOUND) if given.no_sound else set()) | (set() if given.profile else set(PROFILES))
    wanted = given.parts or [name for name in PARTS if name not in ASKED_FOR]
    return [name for name in PARTS if name in wanted and name not in left_out]


def run(given: argparse.Namespace, facts: dict[str, Any], path: Path, ends: float) -> dict[str, Any]:
    """The result, which also lies at ``path``; after ``ends`` (of ``time.monotonic``) nothing new begins."""
    sizes = tiny() if given.tiny else full()
    exact_sums()  # as the server does
    lab, parts = Lab(given, sizes), chosen(given)
    known = {"linear": given.linear, "fused": given.fused, "window": given.window, "baseline": baseline(given.linear)}
    ledger = Ledger({"tool": TOOL, "size": sizes.name, "parts": parts} | known | facts, path, ends)
    ledger.run("floor", lambda: _floor(lab, ledger))
    for name in parts:
        if not ledger.run(name, partial(_part, lab, name)) and lost(lab.device):
            ledger.lose(name)
            break
    ledger.finish()
    return ledger.result


def _part(lab: Lab, name: str) -> Iterator[Item]:
    lab.tidy()
    yield from PARTS[name](lab)
    if lab.on_gpu:
        yield Fact(f"card_after_{name}", card())


def _floor(lab: Lab, ledger: Ledger) -> list[Item]:
    ledger.set_floor(floor_of(lab.device, lab.clock))
    lab.free()
    return []
