"""Closed-loop clients of the soak: whole answers, cancels, malformed requests, short connections, killed clients."""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.endurance.case import Case, Verdict, judge
from tests.endurance.outcome import End, Outcome, flaw
from tests.endurance.traffic import Job, Traffic
from tests.endurance.wire import STAY, Leave, Wire, wire_to

CANCEL_SHARE, MALFORMED_SHARE, SHORT_CONNECTION_SHARE = 0.10, 0.05, 0.10
PATIENCE_S = 120.0  # far above any answer here on a busy machine: what is not there then never comes
THINK_S = 0.3
VICTIM_EVERY_S, VICTIM_REQUESTS, VICTIM_START_S = 45.0, 4, 30.0
LOST_PAUSE_S = 1.0  # a server that is restarting is asked once a second, not a thousand times
KEPT_PROBLEMS = 20
VICTIM = Path(__file__).with_name("victim.py")


@dataclass(slots=True)
class Tally:
    """What happened so far."""

    requests: int = 0
    completed: int = 0
    cancelled: int = 0
    malformed: int = 0
    killed_clients: int = 0
    errors_expected: int = 0
    errors_unexpected: int = 0
    hangs: int = 0
    lost: int = 0
    ids_differ: int = 0
    ids_compared: int = 0
    problems: list[str] = field(default_factory=list)

    def problem(self, kind: str, words: str) -> None:
        """Counts a problem and keeps the first few in words."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(f"{kind}: {words[:300]}")


@dataclass(frozen=True, slots=True)
class Known:
    """What a pinned request gave when it was alone."""

    ids: tuple[int, ...]
    codes: tuple[int, ...]
    samples: int

    @classmethod
    def of(cls, outcome: Outcome) -> Known:
        """Of a complete answer."""
        return cls(tuple(outcome.ids), tuple(outcome.codes), outcome.samples)


class Talkers:
    """Clients in one event loop.

    Args:
        url: of the server.
        traffic: right requests.
        malformed: requests that must be refused.
        over: says when the run is over.
    """

    def __init__(
        self, url: str, traffic: Traffic, malformed: Sequence[Case], seed: int, over: Callable[[], bool]
    ) -> None:
        self._url, self._traffic, self._malformed, self._over = url, traffic, malformed, over
        self._draw = random.Random(seed)
        self._known: list[Known] = []
        self.tally = Tally()

    async def remember(self) -> None:
        """Asks every pinned request alone and keeps its ids. Raises ValueError when one has no right answer."""
        async with wire_to(self._url) as wire:
            for job in self._traffic.pinned:
                outcome = await wire.ask(job.payload, PATIENCE_S)
                if wrong := flaw(outcome, job.outputs, job.max_tokens):
                    raise ValueError(f"a pinned request alone: {wrong}")
                self._known.append(Known.of(outcome))

    async def crowd(self, clients: int, seconds: float) -> None:
        """So many clients of heavy requests only, for so long: what the server takes at its peaks it takes now."""
        end = time.monotonic() + seconds

        async def one() -> None:
            async with wire_to(self._url) as wire:
                while not self._over() and time.monotonic() < end:
                    self.tally.requests += 1
                    await self._listen(wire, self._traffic.heavy())

        await asyncio.gather(*(one() for _ in range(clients)))

    async def talk(self, clients: int) -> None:
        """So many clients, and one that is killed now and then, until the run is over."""
        await asyncio.gather(self._victims(), *(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        async with wire_to(self._url) as wire:
            while not self._over():
                if self._draw.random() < SHORT_CONNECTION_SHARE:
                    async with wire_to(self._url) as short:
                        await self._turn(short)
                else:
                    await self._turn(wire)
                await asyncio.sleep(self._draw.expovariate(1 / THINK_S))

    async def _turn(self, wire: Wire) -> None:
        self.tally.requests += 1
        dice = self._draw.random()
        if dice < MALFORMED_SHARE:
            await self._garble(wire)
        elif dice < MALFORMED_SHARE + CANCEL_SHARE:
            await self._leave(wire)
        else:
            await self._listen(wire, self._traffic.short())

    async def _listen(self, wire: Wire, job: Job) -> None:
        outcome = await wire.ask(job.payload, PATIENCE_S, STAY)
        if await self._broke(outcome):
            return
        if wrong := flaw(outcome, job.outputs, job.max_tokens):
            self.tally.problem("errors_unexpected", wrong)
            return
        self.tally.completed += 1
        if job.pinned is not None:
            self.tally.ids_compared += 1
            if (now := Known.of(outcome)) != (then := self._known[job.pinned]):
                self.tally.problem("ids_differ", f"pinned request {job.pinned}: {now} is not {then}")

    async def _leave(self, wire: Wire) -> None:
        leave = Leave(after_responses=self._draw.randint(1, 60))
        if self._draw.random() < 0.5:
            leave = Leave(after_s=self._draw.choice((0.0, 0.01, 0.1, 1.0)) * self._draw.random())
        job = self._traffic.long()
        outcome = await wire.ask(job.payload, PATIENCE_S, leave)
        if await self._broke(outcome):
            return
        self.tally.cancelled += outcome.end == End.CANCELLED
        if outcome.end != End.CANCELLED:  # it was faster than its client
            wrong = flaw(outcome, job.outputs, job.max_tokens)
            self.tally.completed += not wrong
            if wrong:
                self.tally.problem("errors_unexpected", wrong)

    async def _garble(self, wire: Wire) -> None:
        case = self._draw.choice(self._malformed)
        outcome = await wire.ask(case.payload, PATIENCE_S)
        self.tally.malformed += 1
        if await self._broke(outcome):
            return
        verdict, why = judge(case, outcome)
        if verdict in (Verdict.TYPED, Verdict.TRITON):
            self.tally.errors_expected += 1
        else:
            self.tally.problem("errors_unexpected", f"{case.kind}: {verdict} {why}")

    async def _broke(self, outcome: Outcome) -> bool:
        if outcome.end in (End.HANG, End.CUT):
            self.tally.problem("hangs", f"{outcome.end} after {outcome.responses} responses, {outcome.seconds:.1f} s")
        elif outcome.end == End.LOST:
            self.tally.problem("lost", outcome.error)
            await asyncio.sleep(LOST_PAUSE_S)
        return outcome.end in (End.HANG, End.CUT, End.LOST)

    async def _victims(self) -> None:
        due = time.monotonic() + VICTIM_EVERY_S / 3
        while not self._over():
            await asyncio.sleep(1.0)
            if time.monotonic() >= due:
                due = time.monotonic() + VICTIM_EVERY_S
                await kill_client(
                    self._url, [self._traffic.long() for _ in range(VICTIM_REQUESTS)], self._draw.random()
                )
                self.tally.killed_clients += 1


async def kill_client(url: str, jobs: Sequence[Job], after_s: float) -> None:
    """A client process that sends these requests and is killed so long after all their first responses."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / str(number) for number in range(len(jobs))]
        for path, job in zip(paths, jobs, strict=True):
            path.write_bytes(job.payload)
        process = await asyncio.create_subprocess_exec(
            sys.executable, VICTIM, url, *paths, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            assert process.stdout is not None
            await asyncio.wait_for(process.stdout.readline(), VICTIM_START_S)
            await asyncio.sleep(after_s)
        except TimeoutError:
            pass  # it dies early then, which is as good a moment as any
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
