"""Whole answers in process: the time to the first sound, and how many listeners never run dry."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.measure import Clock
from benchmarks.gpu.sound import MOST_IN_CALL, SoundBench
from benchmarks.gpu.sound_child import SoundChild
from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.families.fun_audio_chat.config import FRAME_S
from runtime.scheduling.stream import FAULT, Stream
from runtime.token2wav.hops import ChunkCutter, Cut, HopPolicy

SILENT_GROUPS = 2  # the trained model begins every answer with them


@dataclass(slots=True)
class Listener:
    """Plays a stream as soon as it has sound."""

    cutter: ChunkCutter
    groups: int = 0
    begun: float = 0.0
    until: float = 0.0  # when what it has runs out
    underruns: int = 0

    def hear(self, now: float, seconds: float) -> None:
        """Takes sound that is ready now."""
        if not self.begun:
            self.begun = self.until = now
        elif now > self.until:
            self.underruns += 1
            self.until = now
        self.until += seconds


@dataclass(slots=True)
class Answers:
    """Streams from loop to sound in one thread; on a GPU sound overtakes the frame that runs meanwhile."""

    language: LanguageBench
    sound: SoundBench
    hops: tuple[int, ...]
    listeners: dict[int, Listener] = field(default_factory=dict)
    waiting: list[tuple[int, Cut]] = field(default_factory=list)

    def run(self, prompts: Sequence[Stream], paced: bool) -> None:
        """Runs until every answer has ended; ``paced``: no faster than the listeners."""
        policy = HopPolicy(self.hops)
        for stream in prompts:
            self.listeners[stream.key] = Listener(ChunkCutter(policy))
            self.language.loop().add(stream)
        try:
            self._run(paced)
        finally:
            self.language.clear()
            self.sound.release([stream.key for stream in prompts])

    def _run(self, paced: bool) -> None:
        loop = self.language.loop()
        began, made = time.perf_counter(), 0
        while loop.scheduler.live or loop.scheduler.waiting:
            for item in loop.step():
                if item.frame.finish == FAULT:
                    raise EngineFault("engine", "gave numbers that are not finite", "there is no figure")
                self._push(item.stream.key, item.frame.codes)
            self._calls()
            made += 1
            ahead = made * FRAME_S - (time.perf_counter() - began)
            if paced and ahead > 1.0:
                time.sleep(FRAME_S)
        self._finish()

    def _calls(self) -> None:
        """Sound for what is waiting."""
        while self.waiting:
            batch = self._batch()
            self._heard(batch, self.sound.speak(_rows(batch))[1])

    def _finish(self) -> None:
        """Sound for what is still on its way when all frames are made."""

    def _push(self, key: int, codes: Sequence[int]) -> None:
        listener = self.listeners[key]
        if not codes:
            return
        listener.groups += 1
        if listener.groups > SILENT_GROUPS:
            limit = self.sound.sizes.flow.vocab_size
            self.waiting += [(key, cut) for cut in listener.cutter.push([code % limit for code in codes])]

    def _batch(self) -> dict[int, Cut]:
        # First chunks before later ones, and no stream twice in a call.
        self.waiting.sort(key=lambda item: not item[1].flag & ChunkFlag.START)
        batch: dict[int, Cut] = {}
        for key, cut in self.waiting:
            if len(batch) < MOST_IN_CALL:
                batch.setdefault(key, cut)
        taken = set(map(id, batch.values()))
        self.waiting = [item for item in self.waiting if id(item[1]) not in taken]
        return batch

    def _heard(self, batch: dict[int, Cut], seconds: Sequence[float]) -> None:
        now = time.perf_counter()
        for key, length in zip(batch, seconds, strict=True):
            self.listeners[key].hear(now, length)


@dataclass(slots=True)
class AnswersBeside(Answers):
    """The same with sound that is made elsewhere meanwhile: one call at a time, and frames do not wait for it."""

    sound: SoundChild  # type: ignore[assignment]
    flying: dict[int, Cut] = field(default_factory=dict)

    def _calls(self) -> None:
        if self.flying and self.sound.ready():
            self._land()
        if self.waiting and not self.flying:
            self.flying = self._batch()
            self.sound.begin(_rows(self.flying))

    def _land(self) -> None:
        batch, self.flying = self.flying, {}
        self._heard(batch, self.sound.found())

    def _finish(self) -> None:
        while self.waiting or self.flying:
            if self.flying:
                self._land()
            self._calls()


def _rows(batch: dict[int, Cut]) -> list[tuple[int, ChunkFlag, Sequence[int]]]:
    return [(key, cut.flag, cut.tokens) for key, cut in batch.items()]


def first_audio_ms(language: LanguageBench, sound: SoundBench, clock: Clock, hops: tuple[int, ...], runs: int) -> float:
    """From a 3 s question's spectrum to the first samples, two silent groups forced; median."""
    times = []
    frames = SILENT_GROUPS + -(-(hops[0] + 3) // 5) + 1
    for run in range(runs + 1):
        clock.wait()
        began = time.perf_counter()
        sound.encode(3)
        answers = Answers(language, sound, hops)
        answers.run([language.stream(run, language.sizes.question, frames)], paced=False)
        if not answers.listeners[run].begun:
            raise EngineFault("token2wav", "made no sound", "there is no figure")
        times.append(1000 * (answers.listeners[run].begun - began))
    return float(np.median(times[1:]))


def sustained(
    language: LanguageBench,
    sound: SoundBench | SoundChild,
    counts: Sequence[int],
    hops: tuple[int, ...],
    frames: int,
    kind: type[Answers] | None = None,
) -> Iterator[tuple[int, int]]:
    """Streams, started together, and how often their listeners ran dry; ends with the first count at which one did."""
    for count in counts:
        answers = (kind or Answers)(language, sound, hops)  # type: ignore[arg-type]
        answers.run([language.stream(i, language.sizes.question, frames) for i in range(count)], paced=True)
        underruns = sum(listener.underruns for listener in answers.listeners.values())
        yield count, underruns
        if underruns:
            return
