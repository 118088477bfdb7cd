"""Encoder, flow and vocoder with random weights."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.measure import Clock, Measured
from builders.released import BenchSizes
from builders.sound_sizes import sizes_of
from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.families.fun_audio_chat.encoder import AudioEncoder
from runtime.families.fun_audio_chat.encoder_sizes import encoder_rule
from runtime.graphs.device import ops_for
from runtime.graphs.executor import Executor, executor_for
from runtime.graphs.recorded import DeviceGraph
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.device_build import assemble_flow, vocoder_graph
from runtime.token2wav.flow.cache import block_bytes, stream_bytes
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.layout import Sizes
from runtime.token2wav.shapes import vocoder_profile
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.vocoder.recorded_sizes import vocoder_calls
from runtime.token2wav.vocoder.stage import VocoderStage

VOICE = "voice"
TOKEN_HZ = 25
RESERVE_BYTES = 6 * 2**30  # weights of encoder, flow and vocoder, and what their calls take
MOST_IN_CALL = 8  # chunks of one call, as the server has it
SETTLED = 10  # chunks until the window of the flow is full
ROPE_BASE, PITCH_HZ = 10000.0, 150.0
FIRST = -1  # priority of sound on a GPU: a server runs it in other processes, behind no frame


class RandomNoise:
    """Stands for the stored noise."""

    def __init__(self, shape: tuple[int, int], axis: int) -> None:
        self._buffer = np.random.default_rng(0).random(shape, np.float32)
        self._axis = axis

    def windows(self, begins: Sequence[int], span: int) -> np.ndarray:
        return np.stack([self.window(begin, begin + span) for begin in begins])

    def window(self, begin: int, end: int) -> np.ndarray:
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


def sound_executor(device: torch.device) -> Executor:
    """An executor beside that of the frames: recordings that share memory must not run at once."""
    return executor_for(device, FIRST)


class SoundBench:
    """Both stages of token2wav and the encoder on one device, on a GPU in a CUDA stream of their own.

    Args:
        language: whose encoder's weights there are; None: no encoder.
        executor: of ``sound_executor``.
    """

    def __init__(
        self,
        sizes: BenchSizes,
        language: LanguageBench | None,
        executor: Executor,
        streams: int,
        window: int,
        precision: str,
    ) -> None:
        torch.manual_seed(0)
        on_gpu = executor.device.type == "cuda"
        self._stream = torch.cuda.Stream(executor.device, priority=FIRST) if on_gpu else None
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
        self.sizes, self._executor = sizes, executor
        if language is not None:
            encoder = AudioEncoder(sizes.model.encoder, sizes.model.backbone.hidden_size)
            encoder.load({name: t.float().cpu() for name, t in language.encoder_weights.items()})
            self.encoder = DeviceGraph(executor, encoder.to(executor.device), ("groups",), encoder_rule)
        if on_gpu:
            torch.cuda.synchronize(executor.device)  # weights came in the stream of the frames

    def _beside(self) -> AbstractContextManager[object]:
        """Work in here is behind no frame. What it returns is on the host."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def encode(self, seconds: float) -> np.ndarray:
        """Groups of a clip of noise."""
        encoder = self.sizes.model.encoder
        frames = int(seconds * 100)
        windows = -(-frames // encoder.window_frames)
        filled = np.full(windows, encoder.window_frames)
        mel = np.ones((windows, encoder.num_mel_bins, encoder.window_frames), np.float32)
        with self._beside():
            return self.encoder.run({"mel": mel, "frames": filled, "keep": filled // 4})["groups"]

    def speak(self, rows: Sequence[tuple[int, ChunkFlag, Sequence[int]]]) -> tuple[float, list[float]]:
        """One call of both stages: seconds in the flow, and the seconds of sound of each chunk."""
        keys = {
            "stream_ids": np.array([stream for stream, _, _ in rows]),
            "chunk_flags": np.array([int(flag) for _, flag, _ in rows], np.int32),
        }
        texts = {
            "voices": np.array([VOICE.encode()] * len(rows), np.object_),
            "tokens": np.array([t for _, _, tokens in rows for t in tokens], np.int32),
            "token_lengths": np.array([len(tokens) for _, _, tokens in rows], np.int32),
        }
        with self._beside():
            began = time.perf_counter()
            mel = self.flow.run(keys | texts)
            taken = time.perf_counter() - began
            audio = self.vocoder.run(keys | mel)["audio_lengths"]
        lost = [int(n) for n, (_, flag, _) in zip(audio, rows, strict=True) if n < 0 and not flag & ChunkFlag.RELEASE]
        if lost:
            raise EngineFault("token2wav", f"failed at {len(lost)} of {len(rows)} chunks", "there is no figure")
        return taken, [max(0, int(n)) / self.sizes.hift.sample_rate for n in audio]

    def prepare(self) -> None:
        """Records every size of call, as the server does before it is ready: no figure holds a recording."""
        calls = vocoder_calls(vocoder_profile(self._found, MOST_IN_CALL), self._found.frame_samples)
        with self._beside():
            self.flow.prepare(MOST_IN_CALL)
            self._vocoder_graph.prepare(calls)

    def chunk_rows(self, runs: int) -> Iterator[Measured]:
        """Chunks of 25 tokens in mid-answer, of one stream and of eight in one call."""
        for count in (1, MOST_IN_CALL):
            flows, vocoders = [], []
            tokens = list(range(28))
            for turn in range(SETTLED + runs):
                flag = ChunkFlag.CONTINUE if turn else ChunkFlag.START
                began = time.perf_counter()
                flow, _ = self.speak([(i, flag, tokens if not turn else tokens[:25]) for i in range(count)])
                total = time.perf_counter() - began
                flows.append(1000 * flow)
                vocoders.append(1000 * (total - flow))
            self.release(range(count))
            for name, times in (("flow", flows[SETTLED:]), ("vocoder", vocoders[SETTLED:])):
                yield Measured(f"{name} chunk of 1 s, {count} streams", float(np.median(times)))

    def release(self, streams: Iterable[int]) -> None:
        """Drops what is kept of streams, if anything is."""
        self.speak([(stream, ChunkFlag.RELEASE, ()) for stream in streams])

    def encoder_rows(self, clock: Clock) -> Iterator[Measured]:
        """A 3 s question and one of 10 s."""
        for seconds in (3, 10):
            yield Measured(f"encoder, {seconds} s", clock.ms(partial(self.encode, seconds)))
