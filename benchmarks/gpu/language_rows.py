"""Rows of the language side: steps, whole frames, prompts, and the same steps done naively."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.measure import NAIVE_RUNS, RUNS_TOGETHER, WARM_UPS, Clock, Measured
from benchmarks.gpu.naive import NaiveFrames
from runtime.families.fun_audio_chat.build import steps_loop
from runtime.families.fun_audio_chat.recorded import RecordedFrames
from runtime.frames.loop import FrameLoop
from runtime.graphs.executor import Executor

FUSED_STREAMS = (1, 8)
NO_ROOM = "no memory for the baseline"
Parts = tuple[tuple[str, Callable[[], object], int, str], ...]


def step_rows(bench: LanguageBench, clock: Clock, naive: int) -> Iterator[Measured]:
    """Backbone step, group, for every batch size; the baseline up to ``naive`` streams."""
    context = bench.sizes.context
    for count in bench.sizes.streams:
        for name, work, floor, part in _parts(bench, bench.frames(), count):
            slow, note = _naive(bench, clock, count, context, part) if count <= naive else (None, "")
            yield Measured(f"{name}, {count} streams", _together(bench, clock, work), floor, slow, note)


def fused_rows(bench: LanguageBench, clock: Clock) -> Iterator[Measured]:
    """The same without a baseline, small launches joined and not."""
    for on in (False, True):
        with bench.fused(on) as frames:
            for count in sorted({min(count, bench.options.max_streams) for count in FUSED_STREAMS}):
                for name, work, floor, _ in _parts(bench, frames, count):
                    label = f"fused {'on' if on else 'off'}: {name}, {count} streams"
                    yield Measured(label, _together(bench, clock, work), floor)


def _parts(bench: LanguageBench, frames: RecordedFrames, count: int) -> Parts:
    slots, context = bench.stage(count), bench.sizes.context
    return (
        ("backbone step", lambda: frames._backbone.run(slots), bench.counts.backbone_bytes(count, context), "backbone"),
        ("speech group", lambda: frames._speech.run(slots), bench.counts.speech_bytes(count, context), "speech"),
    )


@torch.inference_mode()
def _together(bench: LanguageBench, clock: Clock, work: Callable[[], object]) -> float:
    return clock.ms(work, bench.sizes.together, RUNS_TOGETHER)


@torch.inference_mode()
def _naive(bench: LanguageBench, clock: Clock, count: int, length: int, part: str) -> tuple[float | None, str]:
    """Milliseconds of a part of the baseline, or why there are none."""
    try:
        return clock.ms(getattr(NaiveFrames(bench.steps, count, length), part), runs=NAIVE_RUNS), ""
    except torch.cuda.OutOfMemoryError:
        return None, NO_ROOM


def frame_rows(bench: LanguageBench, clock: Clock, naive: int) -> Iterator[Measured]:
    """Whole frames through the loop: planning, queueing, ids back to the host, routing.

    The baseline has the number of cached positions that our streams had on the average.
    """
    for count in bench.sizes.streams:
        loop = speaking(bench, count)
        began = _mean_position(loop)
        taken = clock.ms(loop.step, bench.sizes.together, _runs_left(bench, loop))
        if len(loop.scheduler.running) != count:
            raise RuntimeError(f"{len(loop.scheduler.running)} of {count} streams were left at the end of a timing")
        context = (began + _mean_position(loop)) / 2  # answers grow as they are timed
        bench.clear()
        floor = bench.counts.backbone_bytes(count, context) + bench.counts.speech_bytes(count, context)
        slow, problem = _naive(bench, clock, count, round(context), "frame") if count <= naive else (None, "")
        note = f"{context:.0f} positions on the average{', ' * bool(problem)}{problem}"
        yield Measured(f"frame, {count} streams", taken, floor, slow, note)


def speaking(bench: LanguageBench, count: int) -> FrameLoop:
    """The loop with so many streams that have heard a question and speak now."""
    loop = bench.loop()
    for key in range(count):
        loop.add(bench.stream(key, bench.sizes.question, bench.sizes.context))
    while len(loop.scheduler.running) < count:
        loop.step()
    return loop


def _runs_left(bench: LanguageBench, loop: FrameLoop) -> int:
    """Timings until the longest answer would end; a frame is in flight beyond those that are timed."""
    made = max(stream.position for stream in loop.scheduler.running) - bench.sizes.question
    return max(1, min(RUNS_TOGETHER, (bench.sizes.context - made - WARM_UPS - 1) // bench.sizes.together))


def _mean_position(loop: FrameLoop) -> float:
    return float(np.mean([stream.position for stream in loop.scheduler.running]))


def prefill_rows(bench: LanguageBench, clock: Clock) -> Iterator[Measured]:
    """A chunk of a prompt through both stacks; each run is a new stream."""
    loop, keys, positions = bench.loop(), iter(range(1 << 20)), bench.sizes.prefill

    def work() -> None:
        stream = bench.stream(next(keys), positions + 1, 1)
        loop.add(stream)
        loop.step()
        loop.cancel(stream)

    size, flops = bench.counts.prefill_bytes(), bench.counts.prefill_flops(positions)
    yield Measured(f"prefill, {positions} positions", clock.ms(work), size, floor_flops=flops)


def same_frames(bench: LanguageBench, eager: Executor, count: int, frames: int) -> tuple[bool, str]:
    """Greedy ids of recorded frames against the same work run eagerly."""
    found = []
    plain = steps_loop(bench.sizes.model, bench.options, bench.steps, bench.weights, eager)
    for loop in (bench.loop(), plain):
        for key in range(count):
            loop.add(bench.stream(key, bench.sizes.question, frames, greedy=True))
        ids: dict[int, list[tuple[tuple[int, ...], tuple[int, ...]]]] = {}
        while loop.scheduler.live or loop.scheduler.waiting:
            for item in loop.step():
                ids.setdefault(item.stream.key, []).append((item.frame.text_ids, item.frame.codes))
        found.append(ids)
    # A stream whose numbers are not finite ends with a frame without text, in both alike.
    alive = all(len(ids) == count and all(text for made in ids.values() for text, _ in made) for ids in found)
    return alive and found[0] == found[1], f"{count} streams, {frames} frames, greedy ids"
