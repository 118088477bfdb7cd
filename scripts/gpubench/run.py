"""The order of a bench: checks, then the language side, then sound, then both together."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from gpubench.checks import Check, run_checks
from gpubench.language import LanguageBench, same_frames
from gpubench.measure import Clock, Floor, Measured, records, table
from gpubench.sizes import BenchSizes, full, tiny
from gpubench.sound import SoundBench, first_audio_ms, streams_that_fit, sustained
from kernels.ops import ops_for
from runtime.frames.executor import EagerExecutor, executor_for

TOOL = "bench_gpu"  # marks its results
HOPS = {"hop 15": (15, 10, 10, 15, 25), "earliest": (7, 5, 5, 8, 10, 15, 25)}
NAIVE_STREAMS = 32  # more would need too much memory for caches that are copied in every layer
SUSTAINED_FRAMES = {"full": 150, "tiny": 16}


def say(line: str) -> None:
    """Progress, at once."""
    print(line, flush=True)


def run(given: argparse.Namespace, facts: Callable[[torch.device], dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """The result and its table."""
    device, sizes = torch.device(given.device), tiny() if given.tiny else full()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False  # the pitch net is float32 for a reason
    result: dict[str, Any] = {
        "tool": TOOL,
        "size": sizes.name,
        "linear": given.linear,
        "fused": given.fused,
        **facts(device),
    }
    say(f"{sizes.name} sizes on {result['device']}: checks of kernels")
    checks = run_checks(sizes, device, dtype)
    clock = Clock(device, sizes.runs)
    floor = Floor.of(device, clock)
    say("language: weights and recordings")
    bench = LanguageBench(sizes, executor_for(device), ops_for(device), dtype, given.linear, given.fused)
    same, what = same_frames(bench, EagerExecutor(device), min(3, max(sizes.streams)), 6)
    checks.append(Check(f"recorded frames, {what}", 0.0 if same else 1.0, 0.0))
    say("\n".join(f"{'pass' if c.passed else 'FAIL'}  {c.name}: {c.error:.2e} ({c.bound:.0e})" for c in checks))
    rows = bench.step_rows(clock, 0 if given.no_naive else NAIVE_STREAMS)
    rows += bench.frame_rows(clock, 0 if given.no_naive else NAIVE_STREAMS)
    rows.append(bench.prefill_row(clock))
    passed = all(check.passed for check in checks)
    if not given.no_sound:
        try:
            rows += _sound(given, sizes, bench, clock, result)
        except torch.cuda.OutOfMemoryError as error:  # what was measured before is kept
            passed, result["sound_error"] = False, str(error).splitlines()[0]
    result |= {
        "passed": passed,
        "bandwidth": floor.bandwidth,
        "bandwidth_source": floor.source,
        "rows": records(rows, floor),
        "checks": [{"name": c.name, "error": c.error, "bound": c.bound, "passed": c.passed} for c in checks],
    }
    return result, f"{table(rows, floor)}\nfloor: {floor.bandwidth / 1e12:.3g} TB/s, {floor.source}"


def _sound(
    given: argparse.Namespace, sizes: BenchSizes, bench: LanguageBench, clock: Clock, result: dict[str, Any]
) -> list[Measured]:
    say("sound: weights and recordings")
    precision = "float16" if given.device == "cuda" else "float32"
    streams = streams_that_fit(sizes, max(8, *sizes.sustained), given.window, precision, bench.executor.device)
    say(f"sound for {streams} streams")
    sound = SoundBench(sizes, bench, bench.executor, streams, given.window, precision)
    sound.prepare()
    rows = sound.encoder_rows(clock) + sound.chunk_rows(sizes.runs)
    for name, hops in HOPS.items():
        taken = first_audio_ms(bench, sound, clock, hops, min(sizes.runs, 10))
        rows.append(Measured(f"first audio in process, {name}", taken, note="3 s question, two silent groups"))
    frames = SUSTAINED_FRAMES[sizes.name]
    counts = [count for count in sizes.sustained if count <= streams]
    best, underruns = sustained(bench, sound, counts, HOPS["hop 15"], frames)
    result |= {"sound_streams": streams, "sustained_streams": best, "underruns": underruns, "window": given.window}
    say(f"real-time streams sustained without an underrun: {best} ({underruns}, {frames} frames each)")
    return rows
