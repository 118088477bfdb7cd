"""Thousands of cancels at every stage of a request. The last line is JSON.

    python -m tests.endurance.storm --out build/cpu --cancels 10000

Exit status 0 when at the end nothing is held, nothing hung or crashed, and cancelled requests were free in time.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from typing import Any

from benchmarks.record import finish
from client.protocol.command_line import run_command
from runtime.supervisor.launch import ServerProcess
from tests.endurance.freeing import LIMIT_MS, free_ms, moment, summary
from tests.endurance.serve import add_arguments, serve
from tests.endurance.storming import Storm
from tests.endurance.talkers import Known
from tests.endurance.traffic import Traffic
from tests.endurance.watching import KV_USED, Watcher, still_held
from tests.endurance.wire import wire_to

PATIENCE_S = 120.0
KNOWN_TOKENS = 24  # of an answer that is asked for alone before and after
GROUPS = (1, 1, 4, 16)  # requests that are cancelled at one moment


class Run:
    """Storm, then the sample that is timed, on one server."""

    def __init__(self, arguments: argparse.Namespace, server: ServerProcess) -> None:
        self._arguments, self._server = arguments, server
        self._traffic = Traffic(arguments.seed, ())
        self._asked = self._traffic.ending(KNOWN_TOKENS)
        self._storm = Storm(server.url, self._traffic, arguments.cancels, arguments.seed)
        self._watcher = Watcher(server)
        self._times_ms: dict[int, list[float]] = {}

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The line, and what is saved beside it."""
        before = asyncio.run(self._known())
        self._watcher.start()
        began = time.monotonic()
        asyncio.run(self._storm.blow(self._arguments.clients, self._progress))
        seconds = time.monotonic() - began
        left = still_held(self._server)
        if not left:
            asyncio.run(self._time())
            left = still_held(self._server)
        changed = asyncio.run(self._known()) != before
        self._watcher.stop()
        return self._result(left, changed, seconds)

    async def _known(self) -> Known:
        async with wire_to(self._server.url) as wire:
            return Known.of(await wire.ask(self._asked.payload, PATIENCE_S))

    async def _time(self) -> None:
        draw = random.Random(self._arguments.seed)
        async with wire_to(self._server.url) as wire:
            for number in range(self._arguments.timed):
                group = GROUPS[number % len(GROUPS)]
                jobs = [self._traffic.spoken() for _ in range(group)]
                spent = await free_ms(self._server, wire, jobs, moment(draw))
                self._times_ms.setdefault(group, []).append(spent)

    def _progress(self) -> None:
        count = self._storm.count
        print(f"{count.cancels} cancels, {count.early} early, {count.hangs} hangs, {count.lost} lost", file=sys.stderr)

    def _result(self, left: dict[str, float], changed: bool, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
        count, crashes = self._storm.count, self._watcher.restarts
        times = [spent for group in self._times_ms.values() for spent in group]
        timing = summary(times)
        bad = left or crashes or count.hangs or count.lost or count.wrong or changed
        line = {
            "passed": not bad and timing.get("free_ms_p95", LIMIT_MS + 1) <= LIMIT_MS,
            "cancels": count.cancels,
            "by_stage": dict(sorted(count.by_stage.items())),
            "complete_before_cancel": count.early,
            "refused": count.refused,
            "crashes": crashes,
            "hangs": count.hangs,
            "lost": count.lost,
            "wrong": len(count.wrong),
            "leaks": len(left),
            "leaked_blocks": sum(left.get(name, 0) for name in KV_USED),
            "known_answer_changed": changed,
            "timed": len(times),
            **timing,
            "seconds": round(seconds, 1),
            "seed": self._arguments.seed,
        }
        by_group = {str(group): summary(spent) for group, spent in self._times_ms.items()}
        return line, {"held": left, "wrong_answers": count.wrong[:20], "free_ms_by_requests": by_group}


def main() -> int:
    """Starts a server, runs, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cancels", type=int, default=10_000, help="(default: %(default)s)")
    parser.add_argument("--clients", type=int, default=16, help="at once (default: %(default)s)")
    parser.add_argument(
        "--timed", type=int, default=80, help="groups of requests that are timed (default: %(default)s)"
    )
    arguments = parser.parse_args()
    with serve(arguments) as server:
        line, more = Run(arguments, server).run()
    return finish(line, arguments.save, more)


if __name__ == "__main__":
    sys.exit(run_command(main))
