"""Fuzz cases against a running server: many in flight, a verdict on each, now and then a look at what it holds."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.launch import ServerProcess
from tests.endurance.case import FAILURES, Case, Verdict, judge
from tests.endurance.outcome import End, Outcome
from tests.endurance.talkers import Known
from tests.endurance.traffic import Job
from tests.endurance.watching import still_held
from tests.endurance.wire import Leave, Wire

IN_FLIGHT = 16
PATIENCE_S = 60.0  # every case asks for a few tokens
LEAVE = Leave(after_responses=400)  # a case may have spoiled its own max_tokens; its end is not waited for then
NOTICE_S, RESTART_S = 1.0, 120.0
KEPT_FAILURES = 50
T = TypeVar("T")


class Fuzzer:
    """Sends batches of cases. Lives in one event loop of its own.

    Args:
        server: that is asked.
        folder: where failing cases are kept; None keeps none.
    """

    def __init__(self, server: ServerProcess, folder: Path | None = None) -> None:
        self._server, self._folder = server, folder
        self._loop = asyncio.new_event_loop()
        self._wire = self._run(self._connect())
        self._golden: list[tuple[Job, Known]] = []
        self.counts: Counter[Verdict] = Counter()
        self.kinds: Counter[str] = Counter()
        self.leaks = 0
        self.restarts = 0
        self._seen: set[int] = set()
        self.failures: list[str] = []

    async def _connect(self) -> Wire:
        return Wire(self._server.url)

    def remember(self, jobs: Sequence[Job]) -> None:
        """Asks for answers whose ids must stay as they are now."""
        for job in jobs:
            outcome = self._run(self._wire.ask(job.payload, PATIENCE_S))
            self._golden.append((job, Known.of(outcome)))

    def send(self, cases: Sequence[Case]) -> list[str]:
        """Sends the cases, ``IN_FLIGHT`` at once; returns what was wrong, in words."""
        wrong = []
        for begin in range(0, len(cases), IN_FLIGHT):
            batch = cases[begin : begin + IN_FLIGHT]
            outcomes = self._run(self._ask(batch))
            if any(outcome.end == End.LOST for outcome in outcomes):
                outcomes = self._find_killer(batch, outcomes)
            wrong += [words for pair in zip(batch, outcomes, strict=True) if (words := self._judge(*pair))]
        self.failures += wrong[: max(0, KEPT_FAILURES - len(self.failures))]
        return wrong

    def _judge(self, case: Case, outcome: Outcome) -> str:
        verdict, why = judge(case, outcome)
        self.counts[verdict] += 1
        self.kinds[case.kind] += 1
        self._seen.add(hash(case.payload))
        if verdict not in FAILURES:
            return ""
        self._keep(case)
        return f"{case.kind}: {verdict}: {why[:300]}"

    def _find_killer(self, batch: Sequence[Case], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Sends the cases that were lost again, one after another."""
        self.restarts += 1
        found = []
        for case, outcome in zip(batch, outcomes, strict=True):
            if outcome.end == End.LOST:
                self._wait_ready()
                outcome = self._run(self._wire.ask(case.payload, PATIENCE_S, LEAVE))
                self.restarts += outcome.end == End.LOST
            found.append(outcome)
        self._wait_ready()
        return found

    def _wait_ready(self) -> None:
        time.sleep(NOTICE_S)  # the supervisor's, to see a death
        deadline = time.monotonic() + RESTART_S
        while not self._server.ready(PUBLIC_MODEL) and time.monotonic() < deadline:
            time.sleep(0.2)

    def fresh(self, cases: Sequence[Case]) -> list[Case]:
        """The cases that were not sent before; hypothesis repeats itself."""
        found = {case.payload: case for case in cases if hash(case.payload) not in self._seen}
        return list(found.values())

    def inspect(self) -> list[str]:
        """Is the idle server empty, and are its answers what they were? Returns what is wrong, in words."""
        left = still_held(self._server)
        wrong = [f"an idle server holds {left}"] if left else []
        self.leaks += bool(left)
        for job, known in self._golden:
            outcome = self._run(self._wire.ask(job.payload, PATIENCE_S))
            if Known.of(outcome) != known:
                self.counts[Verdict.WRONG] += 1
                wrong.append(f"a known answer is another one now: {outcome.end} {outcome.error}")
        self.failures += wrong
        return wrong

    def close(self) -> None:
        """Closes connection and event loop."""
        self._run(self._wire.close())
        self._loop.close()

    def summary(self) -> dict[str, int]:
        """Counts so far."""
        return {verdict.value: count for verdict, count in sorted(self.counts.items())}

    async def _ask(self, cases: Sequence[Case]) -> list[Outcome]:
        return await asyncio.gather(*(self._wire.ask(case.payload, PATIENCE_S, LEAVE) for case in cases))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def _keep(self, case: Case) -> None:
        if self._folder is not None and len(self.failures) < KEPT_FAILURES:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / f"{case.kind}_{len(list(self._folder.iterdir()))}.bin").write_bytes(case.payload)
