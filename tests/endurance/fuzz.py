"""Fuzz cases over the whole protocol against a real server. The last line is JSON.

    python -m tests.endurance.fuzz --out build/cpu --cases 20000 --seed 1

Exit status 0 when every case led to a clear error or a correct answer. Failing cases are kept in `--keep`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, find, settings
from hypothesis.errors import NoSuchExample

from benchmarks.record import finish
from client.protocol.command_line import run_command
from tests.endurance.case import FAILURES, Verdict
from tests.endurance.fuzzing import Fuzzer
from tests.endurance.oracle import PromptOracle
from tests.endurance.pool import every_kind, pool
from tests.endurance.serve import add_arguments, serve
from tests.endurance.traffic import Traffic
from tests.endurance.watching import Watcher

CHUNK = 500  # cases between two looks at what the idle server holds
GOLDEN = 3
MAX_FAILURES = 40  # then the run ends: what is wrong is known
SHRINK_EXAMPLES = 2000
STRIDE = 100_000  # between the seeds of two runs: each chunk has a seed of its own


def run(fuzzer: Fuzzer, cases: int, seed: int, oracle: PromptOracle) -> int:
    """Sends so many different cases; returns how many of them, and of the looks at the server, failed."""
    failed = done = number = 0
    while done < cases and failed <= MAX_FAILURES:
        chunk = fuzzer.fresh(pool(every_kind(oracle), CHUNK, seed * STRIDE + number))[: cases - done]
        done += len(chunk)
        wrong = fuzzer.send(chunk) + fuzzer.inspect()
        for words in wrong:
            print(words, file=sys.stderr)
        failed += len(wrong)
        number += 1
        print(f"{done} cases: {fuzzer.summary()}", file=sys.stderr, flush=True)
    return failed


def shrink(fuzzer: Fuzzer, oracle: PromptOracle, seed: int) -> None:
    """Prints the smallest case that hypothesis finds to fail."""
    options = settings(
        max_examples=SHRINK_EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    try:
        case = find(every_kind(oracle), lambda case: bool(fuzzer.send([case])), settings=options, random=Random(seed))
    except NoSuchExample:
        print("no case fails any more", file=sys.stderr)
    else:
        print(f"smallest failing case: {case!r}", file=sys.stderr)


def result(fuzzer: Fuzzer, watcher: Watcher, failed: int, seconds: float, seed: int) -> dict[str, Any]:
    """The line."""
    counts = fuzzer.counts
    crashes = max(watcher.restarts, fuzzer.restarts, counts[Verdict.CRASH])
    return {
        "passed": not (failed or crashes or fuzzer.leaks or any(counts[verdict] for verdict in FAILURES)),
        "cases": sum(fuzzer.kinds.values()),
        "crashes": crashes,
        "hangs": counts[Verdict.HANG],
        "leaks": fuzzer.leaks,
        **{verdict.value: counts[verdict] for verdict in Verdict if verdict not in (Verdict.HANG, Verdict.CRASH)},
        "seconds": round(seconds, 1),
        "seed": seed,
    }


def main() -> int:
    """Starts a server, runs, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cases", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--keep", type=Path, default=Path("output/robust/failing"), help="folder of failing cases")
    parser.add_argument("--shrink", action="store_true", help="after a failed run, look for the smallest case")
    arguments = parser.parse_args()
    traffic = Traffic(arguments.seed, ())
    traffic.pin()
    oracle = PromptOracle(arguments.out)
    with serve(arguments) as server:
        fuzzer, watcher = Fuzzer(server, arguments.keep), Watcher(server)
        fuzzer.remember(traffic.pinned[:GOLDEN])
        watcher.start()
        began = time.monotonic()
        failed = run(fuzzer, arguments.cases, arguments.seed, oracle)
        seconds = time.monotonic() - began
        watcher.stop()
        line = result(fuzzer, watcher, failed, seconds, arguments.seed)
        if failed and arguments.shrink:
            shrink(fuzzer, oracle, arguments.seed)
        fuzzer.close()
    more = {"kinds": dict(fuzzer.kinds), "failures": fuzzer.failures}
    return finish(line, arguments.save, more)


if __name__ == "__main__":
    sys.exit(run_command(main))
