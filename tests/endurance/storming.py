"""Cancels at every stage of a request, and how soon a cancelled request holds nothing. Knows no verdicts.

Stages: a request is cancelled before it was sent whole, while it is encoded or waits for a slot, while its prompt
is prefilled, while it speaks, while token2wav works for it, or as its last response comes. By kind of leaving: a
cancelled call, a dropped connection, a killed process.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from client.errors import from_message
from tests.endurance.outcome import End, Outcome, flaw
from tests.endurance.relay import Relay
from tests.endurance.talkers import kill_client
from tests.endurance.traffic import Job, Traffic
from tests.endurance.wire import STAY, Leave, Wire, wire_to

PATIENCE_S = 120.0
DROP_SHARE, KILL_SHARE = 0.1, 0.04  # of the cancels; a killed client takes several requests along
IN_DROPPED, IN_KILLED = 6, 8


class Stage(StrEnum):
    """When a request is cancelled."""

    SENT = "sent"  # at once
    QUEUED = "queued_or_encoding"
    PREFILL = "prefill"  # a long prompt, before the first response
    SPEAKING = "speaking"  # after some responses
    SOUND = "in_token2wav"  # after the first sound
    LAST = "last_chunk"  # about when the answer ends
    DROPPED = "dropped_connection"
    KILLED = "killed_client"


CALLS = (Stage.SENT, Stage.QUEUED, Stage.PREFILL, Stage.SPEAKING, Stage.SOUND, Stage.LAST)
LAST_TOKENS = 8  # of the answers that are cancelled at their end


@dataclass(slots=True)
class Count:
    """What happened so far. ``early``: complete before its client left; ``refused``: there was no room."""

    by_stage: Counter[Stage] = field(default_factory=Counter)
    early: int = 0
    refused: int = 0
    hangs: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def cancels(self) -> int:
        """Requests that were cancelled."""
        return sum(self.by_stage.values())


class Storm:
    """Clients that leave.

    Args:
        url: of the server.
        traffic: requests; its long answers are left.
        cancels: how many in all.
    """

    def __init__(self, url: str, traffic: Traffic, cancels: int, seed: int) -> None:
        self._url, self._traffic, self._cancels = url, traffic, cancels
        self._draw = random.Random(seed)
        self.count = Count()

    async def blow(self, clients: int, progress: Callable[[], None]) -> None:
        """Runs so many clients at once until there were enough cancels."""
        async with wire_to(self._url) as wire:
            workers = [asyncio.create_task(self._work(wire)) for _ in range(clients)]
            while not all(worker.done() for worker in workers):
                await asyncio.wait(workers, timeout=10.0)
                progress()
            await asyncio.gather(*workers)

    async def _work(self, wire: Wire) -> None:
        while self.count.cancels < self._cancels:
            dice = self._draw.random()
            if dice < DROP_SHARE / IN_DROPPED:
                await self.drop()
            elif dice < DROP_SHARE / IN_DROPPED + KILL_SHARE / IN_KILLED:
                await kill_client(self._url, self._jobs(IN_KILLED), self._draw.random())
                self.count.by_stage[Stage.KILLED] += IN_KILLED
            else:
                await self._cancel(wire, self._draw.choice(CALLS))

    async def _cancel(self, wire: Wire, stage: Stage) -> None:
        job, leave = self._plan(stage)
        self._judge(job, stage, await wire.ask(job.payload, PATIENCE_S, leave))

    def _plan(self, stage: Stage) -> tuple[Job, Leave]:
        draw = self._draw
        match stage:
            case Stage.SENT:
                return self._traffic.long(), Leave(after_s=0.0)
            case Stage.QUEUED:
                return self._traffic.long(), Leave(after_s=draw.uniform(0.001, 0.05))
            case Stage.PREFILL:
                return self._traffic.wordy(), Leave(after_s=draw.uniform(0.01, 0.2))
            case Stage.SPEAKING:
                return self._traffic.long(), Leave(after_responses=draw.randint(1, 30))
            case Stage.SOUND:
                return self._traffic.spoken(), Leave(after_sounds=draw.randint(1, 3))
        # Text ids come with each frame: as many responses as tokens, and the last sounds after them.
        return self._traffic.ending(LAST_TOKENS), Leave(after_responses=LAST_TOKENS + draw.randint(-1, 2))

    async def drop(self) -> None:
        """Several requests on one connection, which then breaks."""
        relay = Relay(self._url)
        async with wire_to(relay.url) as wire:
            jobs = self._jobs(IN_DROPPED)
            calls = [asyncio.create_task(wire.ask(job.payload, PATIENCE_S, STAY)) for job in jobs]
            await asyncio.sleep(self._draw.uniform(0.02, 1.0))
            relay.drop()
            for job, outcome in zip(jobs, await asyncio.gather(*calls), strict=True):
                gone = outcome.end == End.LOST
                outcome.end = End.CANCELLED if gone else outcome.end
                self._judge(job, Stage.DROPPED, outcome)

    def _jobs(self, count: int) -> list[Job]:
        return [self._traffic.long() for _ in range(count)]

    def _judge(self, job: Job, stage: Stage, outcome: Outcome) -> None:
        if outcome.end == End.CANCELLED:
            self.count.by_stage[stage] += 1
        elif outcome.end in (End.HANG, End.CUT):
            self.count.hangs += 1
            self.count.wrong.append(
                f"{stage}: {outcome.end} after {outcome.responses} responses, {outcome.seconds:.1f} s"
            )
        elif outcome.end == End.LOST:
            self.count.lost += 1
        elif outcome.end == End.ERROR and from_message(outcome.error) and " UNAVAILABLE: " in f" {outcome.error}":
            self.count.refused += 1  # the queue was full or slow, and said so
        elif wrong := flaw(outcome, job.outputs, job.max_tokens):
            self.count.wrong.append(f"{stage}: {wrong[:300]}")
        else:
            self.count.early += 1
