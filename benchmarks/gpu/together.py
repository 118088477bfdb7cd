"""What streams do to each other on one device: ids in company, and how long a step takes while others join."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.ledger import Fact, Item
from benchmarks.gpu.measure import Clock, Measured

OTHERS, FRAMES = 20, 60
MOST_JOINING, BETWEEN = 32, 3  # streams that join one by one, and steps between two of them
Ids = list[tuple[tuple[int, ...], tuple[int, ...]]]


def company(bench: LanguageBench) -> Iterator[Item]:
    """A stream alone and beside others, with the same seed: the first frame whose ids differ, None when none does.

    A finding and no check: sums depend on the number of rows here (docs/cuda.md), ids need not.
    """
    frames = min(FRAMES, bench.sizes.context - 1)
    others = min(OTHERS, bench.options.max_streams - 1)
    for greedy in (False, True):
        alone, beside = (_ids(bench, count, frames, greedy) for count in (0, others))
        other = next((i for i, pair in enumerate(zip(alone, beside, strict=True)) if pair[0] != pair[1]), None)
        known = {"others": others, "frames": len(alone), "first_other_frame": other}
        yield Fact("company_greedy" if greedy else "company_sampled", known)


def _ids(bench: LanguageBench, others: int, frames: int, greedy: bool) -> Ids:
    """Of the first stream, which always joins last: others speak already."""
    loop, found = bench.loop(), Ids()
    scheduler = loop.scheduler
    for key in range(1, 1 + others):
        loop.add(bench.stream(key, bench.sizes.question, bench.sizes.context))
    while len(scheduler.running) < others:
        loop.step()
    loop.add(bench.stream(0, bench.sizes.question, frames, greedy))
    try:
        while any(stream.key == 0 for stream in [*scheduler.waiting, *scheduler.prefilling, *scheduler.running]):
            found += [(i.frame.text_ids, i.frame.codes) for i in loop.step() if i.stream.key == 0]
    finally:
        bench.clear()
        loop.step()
    return found


def joining_rows(bench: LanguageBench, clock: Clock) -> Iterator[Measured]:
    """Steps while one stream after another joins: the longest, and the median beside it."""
    loop, most = bench.loop(), min(MOST_JOINING, bench.options.max_streams)
    times = []
    for key in range(most):
        loop.add(bench.stream(key, bench.sizes.question, bench.sizes.context))
        for _ in range(BETWEEN):
            began = time.perf_counter()
            loop.step()
            times.append(1000 * (time.perf_counter() - began))
    clock.wait()
    bench.clear()
    note = f"median {np.median(times):.3f} ms, step {int(np.argmax(times))} of {len(times)}"
    yield Measured(f"longest step while {most} streams join", float(max(times)), note=note)
