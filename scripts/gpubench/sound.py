"""Encoder, flow and vocoder with random weights, and whole answers in process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from gpubench.language import LanguageBench
from gpubench.measure import Clock, Measured
from gpubench.sizes import BenchSizes
from kernels.ops import ops_for
from runtime.contracts import ChunkFlag
from runtime.device_graphs import DeviceGraph
from runtime.device_sizes import encoder_rule, vocoder_calls
from runtime.frames.executor import Executor
from runtime.models.audio_encoder import AudioEncoder
from runtime.stream import FRAME_S, Stream
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.device_build import assemble_flow, vocoder_graph
from runtime.token2wav.flow import Flow
from runtime.token2wav.flow_cache import block_bytes, stream_bytes
from runtime.token2wav.hops import ChunkCutter, Cut, HopPolicy
from runtime.token2wav.layout import Sizes
from runtime.token2wav.shapes import vocoder_profile
from runtime.token2wav.sizes import sizes_of
from runtime.token2wav.vocoder import Vocoder
from runtime.token2wav.vocoder_stage import VocoderStage

VOICE = "voice"
TOKEN_HZ = 25
SILENT_GROUPS = 2  # the trained model begins every answer with them
RESERVE_BYTES = 6 * 2**30  # weights of encoder, flow and vocoder, and what their calls take
MOST_IN_CALL = 8  # chunks of one call, as the server has it
ROPE_BASE, PITCH_HZ = 10000.0, 150.0


class RandomNoise:
    """Stands for the stored noise."""

    def __init__(self, shape: tuple[int, int], axis: int) -> None:
        self._buffer = np.random.default_rng(0).random(shape, np.float32)
        self._axis = axis

    def window(self, begin: int, end: int) -> np.ndarray:
        """See ``runtime.token2wav.noise.Noise``."""
        return np.take(self._buffer, np.arange(begin, end) % self._buffer.shape[self._axis], axis=self._axis)


def streams_that_fit(sizes: BenchSizes, wanted: int, window: int, precision: str, device: torch.device) -> int:
    """As many of the wanted streams as there is memory for: their caches are most of what sound takes."""
    if device.type != "cuda":
        return wanted
    found = _sizes(sizes)
    each = stream_bytes(found) + window * block_bytes(found, np.dtype(precision))
    return min(wanted, max(1, (torch.cuda.mem_get_info(device)[0] - RESERVE_BYTES) // each))


def _sizes(sizes: BenchSizes) -> Sizes:
    return sizes_of(Token2WavConfig(Path("."), sizes.flow, sizes.hift, TOKEN_HZ), (VOICE,))


class SoundBench:
    """Both stages of token2wav and the encoder on one device."""

    def __init__(
        self, sizes: BenchSizes, language: LanguageBench, executor: Executor, streams: int, window: int, precision: str
    ) -> None:
        torch.manual_seed(0)
        flow, vocoder = Flow(sizes.flow).eval(), Vocoder(sizes.hift).eval()
        half = sizes.flow.head_dim // 2
        flow.estimator.rotary_embed.inv_freq.copy_(ROPE_BASE ** (-torch.arange(half) / half))  # type: ignore[operator]
        nn.init.constant_(vocoder.f0_predictor.classifier.bias, PITCH_HZ)
        found = _sizes(sizes)
        voices = {VOICE: np.ones(sizes.flow.speaker_dim, np.float32)}
        seconds = 60
        mel_noise = RandomNoise((sizes.flow.mel_bins, seconds * 50), 1)
        source = RandomNoise((seconds * sizes.hift.sample_rate, sizes.hift.harmonics), 0)
        self.flow = assemble_flow(flow, found, voices, mel_noise, executor, streams, window, precision)  # type: ignore[arg-type]
        self._found = found
        self._vocoder_graph = vocoder_graph(vocoder.to(executor.device), executor, ops_for(executor.device))
        self.vocoder = VocoderStage(found, self._vocoder_graph.run, source, streams)  # type: ignore[arg-type]
        self._sizes, self._executor = sizes, executor
        encoder = AudioEncoder(sizes.model.encoder, sizes.model.backbone.hidden_size)
        encoder.load({name: t.float().cpu() for name, t in language.encoder_weights.items()})
        self.encoder = DeviceGraph(executor, encoder.to(executor.device), ("groups",), encoder_rule)

    def encode(self, seconds: float) -> np.ndarray:
        """Groups of a clip of noise."""
        encoder = self._sizes.model.encoder
        frames = int(seconds * 100)
        windows = -(-frames // encoder.window_frames)
        filled = np.full(windows, encoder.window_frames)
        mel = np.ones((windows, encoder.num_mel_bins, encoder.window_frames), np.float32)
        return self.encoder.run({"mel": mel, "frames": filled, "keep": filled // 4})["groups"]

    def speak(self, rows: Sequence[tuple[int, ChunkFlag, Sequence[int]]]) -> tuple[float, list[float]]:
        """One call of both stages: seconds in the flow, and the seconds of sound of each chunk."""
        keys = {
            "stream_ids": np.array([stream for stream, _, _ in rows]),
            "chunk_flags": np.array([int(flag) for _, flag, _ in rows], np.int32),
        }
        began = time.perf_counter()
        mel = self.flow.run(
            keys
            | {
                "voices": np.array([VOICE.encode()] * len(rows), np.object_),
                "tokens": np.array([t for _, _, tokens in rows for t in tokens], np.int32),
                "token_lengths": np.array([len(tokens) for _, _, tokens in rows], np.int32),
            }
        )
        taken = time.perf_counter() - began
        audio = self.vocoder.run(keys | mel)["audio_lengths"]
        return taken, [max(0, int(n)) / self._sizes.hift.sample_rate for n in audio]

    def prepare(self) -> None:
        """Records every size of call, as the server does before it is ready: no figure holds a recording."""
        self.flow.prepare(MOST_IN_CALL)
        self._vocoder_graph.prepare(
            vocoder_calls(vocoder_profile(self._found, MOST_IN_CALL), self._found.frame_samples)
        )

    def chunk_rows(self, runs: int) -> list[Measured]:
        """Chunks of 25 tokens in mid-answer, of one stream and of eight in one call."""
        rows = []
        for count in (1, MOST_IN_CALL):
            flows, vocoders = [], []
            tokens = list(range(28))
            for turn in range(10 + runs):
                flag = ChunkFlag.CONTINUE if turn else ChunkFlag.START
                began = time.perf_counter()
                flow, _ = self.speak([(i, flag, tokens if not turn else tokens[:25]) for i in range(count)])
                total = time.perf_counter() - began
                flows.append(1000 * flow)
                vocoders.append(1000 * (total - flow))
            self.speak([(i, ChunkFlag.RELEASE, ()) for i in range(count)])
            for name, times in (("flow", flows[10:]), ("vocoder", vocoders[10:])):
                rows.append(Measured(f"{name} chunk of 1 s, {count} streams", float(np.median(times))))
        return rows

    def encoder_rows(self, clock: Clock) -> list[Measured]:
        """A 3 s question and one of 10 s."""
        return [Measured(f"encoder, {s} s", clock.ms(lambda s=s: self.encode(s))) for s in (3, 10)]


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
    """Streams from loop to sound, everything in one thread."""

    language: LanguageBench
    sound: SoundBench
    hops: tuple[int, ...]
    listeners: dict[int, Listener] = field(default_factory=dict)
    waiting: list[tuple[int, Cut]] = field(default_factory=list)

    def run(self, prompts: Sequence[Stream], frames: int, paced: bool) -> None:
        """Runs until every stream has made ``frames`` frames; ``paced``: no faster than the listeners."""
        loop, policy = self.language.loop(), HopPolicy(self.hops)
        for stream in prompts:
            self.listeners[stream.key] = Listener(ChunkCutter(policy))
            loop.add(stream)
        began, made = time.perf_counter(), 0
        while loop.scheduler.live or loop.scheduler.waiting:
            for item in loop.step():
                self._push(item.stream.key, item.frame.codes)
            while self.waiting:
                self._call()
            made += 1
            ahead = made * FRAME_S - (time.perf_counter() - began)
            if paced and ahead > 1.0:
                time.sleep(FRAME_S)
        self.sound.speak([(stream.key, ChunkFlag.RELEASE, ()) for stream in prompts])

    def _push(self, key: int, codes: Sequence[int]) -> None:
        listener = self.listeners[key]
        if not codes:
            return
        listener.groups += 1
        if listener.groups > SILENT_GROUPS:
            limit = self.sound._sizes.flow.vocab_size
            self.waiting += [(key, cut) for cut in listener.cutter.push([code % limit for code in codes])]

    def _call(self) -> None:
        # First chunks before later ones, and no stream twice in a call.
        self.waiting.sort(key=lambda item: not item[1].flag & ChunkFlag.START)
        batch: dict[int, Cut] = {}
        for key, cut in self.waiting:
            if len(batch) < MOST_IN_CALL:
                batch.setdefault(key, cut)
        taken = set(map(id, batch.values()))
        self.waiting = [item for item in self.waiting if id(item[1]) not in taken]
        _, seconds = self.sound.speak([(key, cut.flag, cut.tokens) for key, cut in batch.items()])
        now = time.perf_counter()
        for key, length in zip(batch, seconds, strict=True):
            self.listeners[key].hear(now, length)


def first_audio_ms(language: LanguageBench, sound: SoundBench, clock: Clock, hops: tuple[int, ...], runs: int) -> float:
    """From a 3 s question's spectrum to the first samples, two silent groups forced; median."""
    times = []
    frames = SILENT_GROUPS + -(-(hops[0] + 3) // 5) + 1
    for run in range(runs + 1):
        clock.wait()
        began = time.perf_counter()
        sound.encode(3)
        answers = Answers(language, sound, hops)
        answers.run([language.stream(run, language.sizes.question, frames)], frames, paced=False)
        times.append(1000 * (answers.listeners[run].begun - began))
    return float(np.median(times[1:]))


def sustained(
    language: LanguageBench, sound: SoundBench, counts: Sequence[int], hops: tuple[int, ...], frames: int
) -> tuple[int, dict[str, int]]:
    """The most streams, started together, of which no listener ran dry; and the underruns of every count tried."""
    best, found = 0, {}
    for count in counts:
        answers = Answers(language, sound, hops)
        answers.run([language.stream(i, language.sizes.question, frames) for i in range(count)], frames, paced=True)
        found[str(count)] = sum(listener.underruns for listener in answers.listeners.values())
        if found[str(count)]:
            break
        best = count
    return best, found
