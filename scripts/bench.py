"""Speed of the frame loop, without and with a server. The last line is one JSON object.

Load model: closed loop, greedy streams of equal length that start together (prompt of about 43
positions, as a 2.3 s question gives), penalty 1.2 as by default. Every figure is the median of
``--runs`` runs after one warm-up.

* ``frames_per_second``: all streams together, in process: engines, sampler, scheduling, prefill included.
* ``overhead_ms_per_frame_8``: one loop iteration with 8 streams without engines and sampler: schedule,
  admit, pack, block tables, routing, detokenisation.
* ``sampler_ms_8``: choosing all ids of that iteration.
* ``first_frame_ms_system_200``: from a request to its first frame on an idle loop, with a system message of
  200 positions before the prompt: ``new`` to the server, and ``known`` from an earlier request.
* ``server_ms_8``: what the real server adds per iteration with 8 streams: detokenising, building and
  sending the responses (measured inside the server).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_server import server_ms

from runtime.answer import Answer
from runtime.checkpoint.config import ModelConfig
from runtime.engines.build import build_frame_loop
from runtime.frame_loop import FrameLoop
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.params import AnswerParams, SamplingParams
from runtime.stream import Prompt, Stream

PROMPT, PLACEHOLDERS, FRAMES = 43, 12, 200
SYSTEM = 200
STREAMS = (1, 8, 16)
AUTHORS_FPS = 52  # generate() of the authors' code on a checkpoint of these sizes, one thread (reference, section 3)


class Bench:
    """A frame loop and streams that cannot end early."""

    def __init__(self, options: Options) -> None:
        self.config = ModelConfig.read(options.path(options.model))
        self.loop = build_frame_loop(self.config, options.engine)
        self.tokenizer = ChatTokenizer(self.config.directory)
        self._generator = np.random.default_rng(0)

    def streams(self, count: int) -> list[Stream]:
        """Greedy speaking streams; without stop ids every one makes FRAMES frames."""
        ids = replace(self.config.text_ids, stop=())
        params = AnswerParams(max_tokens=FRAMES, sampling=SamplingParams(greedy=True))
        return [Stream(i, self._prompt(), Answer(ids, self.config.speech_ids, params)) for i in range(count)]

    def _prompt(self) -> Prompt:
        ids = self._generator.integers(0, 256, PROMPT)
        positions = np.arange(PLACEHOLDERS) + 10
        ids[positions] = self.config.text_ids.audio
        rows = self._generator.standard_normal((PLACEHOLDERS, self.config.backbone.hidden_size)).astype(np.float32)
        return Prompt(ids, rows, positions)

    def run(self, count: int) -> float:
        """Frames per second of all streams together."""
        for stream in self.streams(count):
            self.loop.add(stream)
        began, frames = time.perf_counter(), 0
        while self.loop.scheduler.live or self.loop.scheduler.waiting:
            frames += len(self.loop.step())
        return frames / (time.perf_counter() - began)

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

    def first_frames(self, runs: int) -> dict[str, float]:
        """Medians for system messages that are new, and for one that is known."""
        messages = [self._generator.integers(0, 256, SYSTEM) for _ in range(runs + 1)]
        new = [self.first_frame(message) for message in messages]
        known = [self.first_frame(messages[-1]) for _ in range(runs)]
        return {"new": round(statistics.median(new[1:]), 3), "known": round(statistics.median(known), 3)}

    def iteration(self, count: int, clocks: dict[str, float]) -> tuple[float, float, float]:
        """Milliseconds per iteration outside engines and sampler, in the sampler, in the engines."""
        streams = self.streams(count)
        texts = {stream: self.tokenizer.stream() for stream in streams}
        for stream in streams:
            self.loop.add(stream)
        clocks.update(engine=0.0, sampler=0.0)
        began, steps = time.perf_counter(), 0
        while self.loop.scheduler.live or self.loop.scheduler.waiting:
            for item in self.loop.step():
                texts[item.stream].push(item.frame.text_id)
            steps += 1
        total = time.perf_counter() - began
        parts = (total - clocks["engine"] - clocks["sampler"], clocks["sampler"], clocks["engine"])
        return tuple(1000 * part / steps for part in parts)  # type: ignore[return-value]


def instrument(loop: FrameLoop, clocks: dict[str, float]) -> None:
    """Has the clocks count the time inside engines, projections and sampler."""

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                clocks[name] += time.perf_counter() - began

        return wrapper

    model: Any = loop._model
    for engine in (model._backbone, model._speech):
        engine.run = timed("engine", engine.run)
    for name in ("embed_text", "embed_prompt", "mix_feedback", "spread", "speech_inputs"):
        setattr(model._projections, name, timed("engine", getattr(model._projections, name)))
    sampler: Any = loop._sampler
    sampler.text = timed("sampler", sampler.text)
    make = sampler.speech

    def speech(*args: Any) -> Any:
        choice = timed("sampler", make)(*args)
        choice.take = timed("sampler", choice.take)
        choice.remember = timed("sampler", choice.remember)
        return choice

    sampler.speech = speech


def median(run: Callable[[], float], runs: int) -> float:
    """Median after one warm-up."""
    run()
    return statistics.median(run() for _ in range(runs))


def main() -> int:
    """Prints a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--no-server", action="store_true", help="leave server_ms_8 out")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = Options.read(arguments.out)
    bench = Bench(options)
    result: dict[str, Any] = {"frames_per_second": {}, "torch_threads": 1, "torch": torch.__version__}
    for count in STREAMS:
        rate = median(lambda count=count: bench.run(count), arguments.runs)  # type: ignore[misc]
        result["frames_per_second"][str(count)] = round(rate, 1)
        print(f"{count:3} streams: {rate:7.1f} frames/s, {rate / AUTHORS_FPS:5.1f} x the authors' generate()")
    first = result["first_frame_ms_system_200"] = bench.first_frames(5 * arguments.runs)
    print(f"first frame behind a system message of {SYSTEM}: new {first['new']} ms, known {first['known']} ms")
    clocks: dict[str, float] = {}
    instrument(bench.loop, clocks)
    bench.iteration(8, clocks)
    rows = [bench.iteration(8, clocks) for _ in range(arguments.runs)]
    overhead, sampler, engines = (statistics.median(column) for column in zip(*rows, strict=True))
    result |= {"overhead_ms_per_frame_8": round(overhead, 4), "sampler_ms_8": round(sampler, 4)}
    print(f"one iteration, 8 streams: overhead {overhead:.3f} ms, sampler {sampler:.3f} ms, engines {engines:.3f} ms")
    if not arguments.no_server:
        result["server_ms_8"] = round(server_ms(arguments.out, 8, FRAMES), 4)
        print(f"the server adds {result['server_ms_8']:.3f} ms per iteration with 8 streams")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
