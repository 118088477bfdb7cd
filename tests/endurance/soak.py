"""Mixed traffic for hours: does anything grow, hang, crash or differ? The last line is JSON.

    python -m tests.endurance.soak --out build/cpu --minutes 60

Exit status 0 when nothing did. An interrupt ends the traffic early; the verdict is then over what there was.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.record import finish, provenance, save
from client.protocol.command_line import run_command
from runtime.options import Options
from runtime.supervisor.launch import ServerProcess
from runtime.token2wav.layout import Sizes
from tests.endurance.pool import malformed, pool
from tests.endurance.serve import add_arguments, serve
from tests.endurance.talkers import Talkers
from tests.endurance.traffic import Traffic
from tests.endurance.verdict import Bounds, Growth, growth_of, warm
from tests.endurance.watching import Sample, Watcher, still_held

MALFORMED_POOL = 200
SAVE_EVERY_S = 30.0
SERIES_POINTS = 200  # of each series in the saved file
CROWD_S, CROWD_SHARE = 60.0, 0.1  # every slot is busy with heavy requests at the beginning; the shorter of the two
GRACE_S = 150.0  # above the patience of a client: what runs may end


class Soak:
    """One run against one server."""

    def __init__(self, arguments: argparse.Namespace, server: ServerProcess) -> None:
        self._arguments, self._server = arguments, server
        options = Options.read(arguments.out)
        self._slots = options.engine.max_streams
        voices = Sizes.read(options.path(options.token2wav.dir)).voices
        self._end = time.monotonic() + 60 * arguments.minutes
        cases = pool(malformed(), MALFORMED_POOL, arguments.seed)
        traffic = Traffic(arguments.seed, voices)
        traffic.pin()
        self._talkers = Talkers(server.url, traffic, cases, arguments.seed, self._over)
        self._watcher = Watcher(server)
        self._interrupted = False
        self._began = time.monotonic()

    def run(self) -> int:
        """The whole run; returns the exit status."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._interrupt)
        asyncio.run(self._talkers.remember())
        self._began = time.monotonic()
        self._end = self._began + 60 * self._arguments.minutes
        self._watcher.start()
        try:
            asyncio.run(self._traffic())
        finally:
            self._watcher.stop()
        line, more = self._result(still_held(self._server))
        return finish(line, self._arguments.save, more)

    async def _traffic(self) -> None:
        talking = asyncio.create_task(self._talk())
        while not talking.done():
            await asyncio.wait((talking,), timeout=SAVE_EVERY_S)
            line, more = self._result({})
            save({**line, **more, **provenance(), "finished": False}, self._arguments.save)
            print(progress(line), file=sys.stderr, flush=True)
            if time.monotonic() > self._end + GRACE_S:
                talking.cancel()
        await talking

    async def _talk(self) -> None:
        await self._talkers.crowd(self._slots, min(CROWD_S, CROWD_SHARE * 60 * self._arguments.minutes))
        await self._talkers.talk(self._arguments.clients)

    def _over(self) -> bool:
        return self._interrupted or time.monotonic() >= self._end

    def _interrupt(self, number: int, frame: object) -> None:
        if self._interrupted:  # the second one means it
            raise KeyboardInterrupt
        self._interrupted = True

    def _result(self, leaked: dict[str, float]) -> tuple[dict[str, Any], dict[str, Any]]:
        tally, samples = self._talkers.tally, list(self._watcher.samples)
        growth = growth_of(warm(samples))
        crashes = self._watcher.restarts
        flaws = growth.flaws(Bounds()) + [f"{name} is {value:g} when idle" for name, value in leaked.items()]
        counts = ("errors_unexpected", "hangs", "lost", "ids_differ")
        flaws += [f"{name}: {getattr(tally, name)}" for name in counts if getattr(tally, name)]
        flaws += [f"crashes: {crashes}"] if crashes else []
        line = {
            "passed": not flaws and tally.completed > 0,
            "minutes": round((time.monotonic() - self._began) / 60, 2),
            **{name: value for name, value in asdict(tally).items() if name != "problems"},
            "crashes": crashes,
            "leaked_blocks": sum(value for name, value in leaked.items() if name.startswith("kv_")),
            "leaked_states": sum(value for name, value in leaked.items() if name.endswith("_streams")),
            **flat(growth),
            "flaws": flaws,
        }
        return line, {
            "seed": self._arguments.seed,
            "problems": tally.problems,
            "series": series(samples),
        }


def flat(growth: Growth) -> dict[str, Any]:
    """Growth as fields of the result: the worst process, and each."""
    return {
        "rss_growth_mb": max(growth.rss_mb.values(), default=0.0),
        "rss_growth_mb_by_process": growth.rss_mb,
        "rss_mb_per_hour_by_process": growth.rss_mb_per_hour,
        "shm_growth_mb": growth.shm_mb,
        "fd_growth": max(growth.fds.values(), default=0.0),
        "thread_growth": max(growth.threads.values(), default=0.0),
    }


def series(samples: list[Sample]) -> dict[str, Any]:
    """Thin series of what was watched: time, then each number by its name."""
    thin = samples[:: max(1, len(samples) // SERIES_POINTS)]
    names = sorted({name for sample in thin for name in sample.processes})
    gauges = ("live_requests", "kv_used_backbone", "kv_used_speech", "flow_streams", "flow_state_bytes")
    made: dict[str, Any] = {"at_s": [round(sample.at_s) for sample in thin]}
    made["shm_mb"] = [round(sample.shm_mb, 1) for sample in thin]
    for name in names:
        uses = [sample.processes.get(name) for sample in thin]
        made[name] = {
            "rss_mb": [use and round(use.rss_mb, 1) for use in uses],
            "anon_mb": [use and round(use.anon_mb, 1) for use in uses],
            "fds": [use and use.fds for use in uses],
            "threads": [use and use.threads for use in uses],
        }
    return made | {name: [sample.gauges.get(name) for sample in thin] for name in gauges}


def progress(line: dict[str, Any]) -> str:
    """A result in one short line, for who watches."""
    names = ("minutes", "requests", "completed", "cancelled", "malformed", "hangs", "errors_unexpected", "crashes")
    return ", ".join(f"{name} {line[name]}" for name in (*names, "rss_growth_mb", "ids_differ"))


def main() -> int:
    """Starts a server, runs, stops it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=60.0, help="of traffic (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=8, help="at once (default: %(default)s)")
    arguments = parser.parse_args()
    with serve(arguments) as server:
        return Soak(arguments, server).run()


if __name__ == "__main__":
    sys.exit(run_command(main))
