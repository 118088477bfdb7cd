"""A frame loop under a closed load: what it makes per second, per CPU second, and where an iteration goes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.build import torch_loop
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.params import AnswerParams, SamplingParams
from runtime.scheduling.stream import Prompt, Stream

PROMPT, PLACEHOLDERS = 43, 12
POSITIONS = 512  # of one stream at most: system message, prompt and answer


@dataclass(frozen=True, slots=True)
class Speed:
    """Frames of all streams together.

    ``cpu``: per second of the processor, over all threads of this process. Other work on the machine slows the wall
    clock, and leaves this figure nearly as it is.
    """

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Parts:
    """Milliseconds of one iteration: outside of engines and sampler, in the sampler, in the engines."""

    overhead: float
    sampler: float
    engines: float


class LoopBench:
    """A frame loop and streams that cannot end early.

    Args:
        options: of a built folder; room for streams and positions is made here, the same for every checkpoint.
        streams: at once, at most.
        frames: of each stream.
    """

    def __init__(self, config: ModelConfig, options: EngineOptions, streams: int, frames: int) -> None:
        self.config, self.frames = config, frames
        room: dict[str, Any] = {"max_streams": streams, "max_positions": POSITIONS, "kv_positions": streams * POSITIONS}
        self.loop = torch_loop(config, replace(options, **room))
        self._generator = np.random.default_rng(0)

    def streams(self, count: int) -> list[Stream]:
        """Greedy speaking streams; without stop ids every one makes all of its frames."""
        ids = replace(self.config.text_ids, stop=())
        params = AnswerParams(max_tokens=self.frames, sampling=SamplingParams(greedy=True))
        return [Stream(i, self._prompt(), Answer(ids, self.config.speech_ids, params)) for i in range(count)]

    def ids(self, count: int) -> np.ndarray:
        """Random text ids. # [count] int64"""
        return self._generator.integers(0, 256, count)

    def _prompt(self) -> Prompt:
        ids = self.ids(PROMPT)
        positions = np.arange(PLACEHOLDERS) + 10
        ids[positions] = self.config.text_ids.audio
        rows = self._generator.standard_normal((PLACEHOLDERS, self.config.backbone.hidden_size)).astype(np.float32)
        return Prompt(ids, rows, positions)

    def busy(self) -> bool:
        """Whether a stream is not done."""
        return bool(self.loop.scheduler.live or self.loop.scheduler.waiting)

    def run(self, count: int) -> Speed:
        """So many streams from their prompts to their last frames."""
        for stream in self.streams(count):
            self.loop.add(stream)
        wall, cpu, frames = time.perf_counter(), time.process_time(), 0
        while self.busy():
            frames += len(self.loop.step())
        return Speed(frames / (time.perf_counter() - wall), frames / (time.process_time() - cpu))

    def speed(self, count: int, runs: int) -> Speed:
        """Medians after one warm-up."""
        self.run(count)
        found = [self.run(count) for _ in range(runs)]
        return Speed(statistics.median(s.wall for s in found), statistics.median(s.cpu for s in found))

    def first_frame(self, system: np.ndarray) -> float:
        """Milliseconds to the first frame of a stream that begins with these ids."""
        [stream] = self.streams(1)
        prompt = stream.prompt
        ids = np.concatenate([system, prompt.ids])
        stream.prompt = Prompt(ids, prompt.audio_embeds, prompt.audio_positions + len(system), len(system))
        began = time.perf_counter()
        self.loop.add(stream)
        while not self.loop.step():
            pass
        taken = time.perf_counter() - began
        self.loop.cancel(stream)
        return 1000 * taken

    def first_frames(self, system: int, runs: int) -> dict[str, float]:
        """Medians for system messages of that length that are new, and for one that is known."""
        messages = [self.ids(system) for _ in range(runs + 1)]
        new = [self.first_frame(message) for message in messages]
        known = [self.first_frame(messages[-1]) for _ in range(runs)]
        return {"new": round(statistics.median(new[1:]), 3), "known": round(statistics.median(known), 3)}


class IterationBench:
    """Where the time of an iteration goes. The loop of the bench is slower from now on: its calls are timed."""

    def __init__(self, bench: LoopBench, tokenizer: ChatTokenizer) -> None:
        self._bench, self._tokenizer = bench, tokenizer
        self._clocks = {"engine": 0.0, "sampler": 0.0}
        model: Any = bench.loop.model
        for engine in model.engines:
            self._time(engine, "run", "engine")
        for name in ("embed_text", "embed_prompt", "spread", "speech_inputs"):
            self._time(model._projections, name, "engine")
        model._decisions.ops = TimedOps(model._decisions.ops, self._timed("sampler", model._decisions.ops.choose))

    def parts(self, count: int, runs: int) -> Parts:
        """Medians after one warm-up."""
        self._run(count)
        rows = [self._run(count) for _ in range(runs)]
        return Parts(*map(statistics.median, zip(*rows, strict=True)))

    def _run(self, count: int) -> Sequence[float]:
        loop, streams = self._bench.loop, self._bench.streams(count)
        texts = {stream: self._tokenizer.stream() for stream in streams}
        for stream in streams:
            loop.add(stream)
        self._clocks.update(engine=0.0, sampler=0.0)
        began, steps = time.perf_counter(), 0
        while self._bench.busy():
            for item in loop.step():
                texts[item.stream].push(item.frame.text_ids[0])
            steps += 1
        engine, sampler = self._clocks["engine"], self._clocks["sampler"]
        return [1000 * s / steps for s in (time.perf_counter() - began - engine - sampler, sampler, engine)]

    def _time(self, owner: Any, name: str, clock: str) -> None:
        setattr(owner, name, self._timed(clock, getattr(owner, name)))

    def _timed(self, clock: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                self._clocks[clock] += time.perf_counter() - began

        return wrapper


class TimedOps:
    """Operations of which one is replaced by its timed self."""

    def __init__(self, ops: Any, choose: Callable[..., Any]) -> None:
        self._ops, self.choose = ops, choose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ops, name)
