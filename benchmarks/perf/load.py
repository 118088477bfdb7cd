"""Our own load generator, for what perf_analyzer cannot do: listeners, mixed modes, cancels, arrivals that do not wait.

One process, one event loop, the asyncio client. Times are taken where the application gets the chunk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.perf.level import CLOSED, LISTENERS, POISSON, level
from benchmarks.perf.outcome import Arrival, Outcome, outcome_of
from client.access import OPEN, Access
from client.aio import AsyncChatClient, AsyncChatStream
from client.errors import ChatError
from client.retry import NO_RETRY

OUTPUTS = {"s2s": ("text", "audio", "finish_reason"), "s2t": ("text", "finish_reason")}  # what an application needs
MODES = tuple(OUTPUTS)


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """What is sent, and when.

    Args:
        kind: `concurrency` (the next request when one ends), `request_rate` (Poisson arrivals, whatever
            came back) or `listeners` (each hears its answer to the end, thinks, and asks again).
        value: how many at once, per second, or how many listeners.
        requests: in all.
        s2t_share: of the requests ask for text only.
        cancel_share: of the requests are cancelled by their client, after `cancel_after_s` at random
            (uniform between the two).
        all_outputs: ask for ids and stats too, as perf_analyzer always does.
        think_s: a listener's pause between hearing the end and asking again.
        timeout: seconds for one answer.
        seed: of everything random here; arrival times, modes and cancels are the same in every run.
    """

    kind: str
    value: float
    requests: int
    s2t_share: float = 0.0
    cancel_share: float = 0.0
    cancel_after_s: tuple[float, float] = (0.05, 1.0)
    all_outputs: bool = False
    think_s: float = 0.0
    timeout: float = 120.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (CLOSED, POISSON, LISTENERS):
            raise ValueError(f"kind: {self.kind!r} is none of {CLOSED}, {POISSON}, {LISTENERS}")
        if self.value <= 0 or (self.kind != POISSON and self.value != int(self.value)):
            raise ValueError(f"value: {self.value} is not above 0, or no whole number of {self.kind}")
        if self.requests < 1:
            raise ValueError(f"requests: {self.requests} is below 1")
        for name in ("s2t_share", "cancel_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not in 0..1")
        if not 0 <= self.cancel_after_s[0] <= self.cancel_after_s[1]:
            raise ValueError(f"cancel_after_s: {self.cancel_after_s} is no range")

    def words(self) -> str:
        """The load model, for the report."""
        arrivals = {
            CLOSED: "closed loop: so many requests at once, the next one sent when one ends",
            POISSON: "open loop: requests at random (Poisson) times, whatever came back",
            LISTENERS: f"each hears its answer to the end in real time, thinks {self.think_s:g} s, asks again",
        }[self.kind]
        low, high = self.cancel_after_s
        cancels = f", {self.cancel_share:.0%} cancelled after {low:g} to {high:g} s" if self.cancel_share else ""
        return f"{arrivals}; {1 - self.s2t_share:.0%} s2s, {self.s2t_share:.0%} s2t{cancels}; no repeats"


@dataclass(frozen=True, slots=True)
class Job:
    """One request to be sent."""

    number: int
    mode: str
    due_s: float  # after the start; only for open loops
    cancel_after_s: float | None


def jobs(spec: LoadSpec) -> list[Job]:
    """All requests of a level, drawn with the level's seed."""
    draw = np.random.default_rng(spec.seed)
    rate = spec.value if spec.kind == POISSON else 1.0
    due = np.cumsum(draw.exponential(1 / rate, spec.requests))
    texts = draw.random(spec.requests) < spec.s2t_share
    cancels = draw.random(spec.requests) < spec.cancel_share
    after = draw.uniform(*spec.cancel_after_s, spec.requests)
    return [
        Job(number, MODES[int(text)], float(at), float(when) if cancel else None)
        for number, (at, text, cancel, when) in enumerate(zip(due, texts, cancels, after, strict=True))
    ]


def measure(
    url: str, clips: Sequence[np.ndarray], spec: LoadSpec, parameters: Mapping[str, Any], access: Access = OPEN
) -> dict[str, Any]:
    """One level."""
    outcomes, seconds = asyncio.run(loaded(url, clips, spec, parameters, access=access))
    return level(spec.kind, spec.value, outcomes, seconds, parameters)


async def loaded(
    url: str,
    clips: Sequence[np.ndarray],
    spec: LoadSpec,
    parameters: Mapping[str, Any],
    connections: int = 1,
    access: Access = OPEN,
) -> tuple[list[Outcome], float]:
    """Outcomes of one load, and the seconds from the first request to the last response.

    Args:
        connections: gRPC connections that the requests share in turn.
    """
    clients = [AsyncChatClient(url, NO_RETRY, tls=access.tls, headers=access.headers) for _ in range(connections)]

    ends: list[float] = []  # pauses of listeners after them are no part of the load

    async def send(job: Job) -> Outcome:
        clip = clips[job.number % len(clips)]
        chosen: dict[str, Any] = {"mode": job.mode, **parameters}
        outputs = None if spec.all_outputs else OUTPUTS[chosen["mode"]]
        stream = clients[job.number % connections].stream(clip, outputs=outputs, timeout=spec.timeout, **chosen)
        outcome = await listen(stream, chosen["mode"], job.cancel_after_s)
        ends.append(time.perf_counter())
        return outcome

    try:
        outcomes = await _ARRIVALS[spec.kind](spec, send)
    finally:
        await asyncio.gather(*(client.close() for client in clients))
    return outcomes, max(ends) - min(outcome.sent_s for outcome in outcomes)


async def listen(stream: AsyncChatStream, mode: str, cancel_after_s: float | None) -> Outcome:
    """Takes one answer and times its pieces."""
    arrivals: list[Arrival] = []
    timer = None
    if cancel_after_s is not None:
        timer = asyncio.get_running_loop().call_later(cancel_after_s, stream.close)
    sent, finished, error = time.perf_counter(), False, ""
    try:
        async for chunk in stream:
            arrivals.append(Arrival(time.perf_counter() - sent, bool(chunk.text), chunk.audio.size))
            finished = bool(chunk.finish_reason)
    except ChatError as failure:
        error = f"{failure.code}: {failure.field}"
    finally:
        if timer is not None:
            timer.cancel()
    cancelled = cancel_after_s is not None and not finished
    return outcome_of(mode, arrivals, "" if cancelled else error, cancelled, sent)


Send = Callable[[Job], Awaitable[Outcome]]


async def _closed(spec: LoadSpec, send: Send) -> list[Outcome]:
    return await _workers(spec, send, lambda outcome: 0.0)


async def _listeners(spec: LoadSpec, send: Send) -> list[Outcome]:
    return await _workers(spec, send, lambda outcome: _still_to_hear(outcome) + spec.think_s)


async def _workers(spec: LoadSpec, send: Send, pause: Callable[[Outcome], float]) -> list[Outcome]:
    """So many workers share the jobs; each sends its next after the pause."""
    waiting = iter(jobs(spec))
    outcomes: list[Outcome] = []

    async def work() -> None:
        for job in waiting:
            outcomes.append(await send(job))
            await asyncio.sleep(pause(outcomes[-1]))

    await asyncio.gather(*(work() for _ in range(int(spec.value))))
    return outcomes


def _still_to_hear(outcome: Outcome) -> float:
    """Seconds of sound that are left to play when the last response came; none for a cancelled answer."""
    if outcome.total_ms is None or outcome.first_audio_ms is None:
        return 0.0
    heard_by = outcome.first_audio_ms / 1000 + outcome.audio_s + sum(outcome.silences_ms) / 1000
    return max(0.0, heard_by - outcome.total_ms / 1000)


async def _open(spec: LoadSpec, send: Send) -> list[Outcome]:
    began = time.perf_counter()
    tasks = [task async for task in _arriving(jobs(spec), send, began)]
    return list(await asyncio.gather(*tasks))


async def _arriving(due: Sequence[Job], send: Send, began: float) -> AsyncIterator[asyncio.Task[Outcome]]:
    for job in due:
        await asyncio.sleep(max(0.0, began + job.due_s - time.perf_counter()))
        yield asyncio.ensure_future(send(job))  # type: ignore[arg-type]


_ARRIVALS: Mapping[str, Callable[[LoadSpec, Send], Awaitable[list[Outcome]]]] = {
    CLOSED: _closed,
    POISSON: _open,
    LISTENERS: _listeners,
}
