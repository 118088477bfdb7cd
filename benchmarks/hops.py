"""What a listener who plays at once hears with each hop policy, when frames of the backbone come slowly.

Real stages over a built folder behind the server's own chunk queue; frames of five speech tokens come
in real time, each after a random time around the pace (``--jitter`` is the standard deviation of its
logarithm). Silence is what a listener waits for sound after the first. Listeners of all policies run
beside each other and draw the same times. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import finish
from client.protocol.command_line import run_command
from runtime.errors import EngineFault, ServeError
from runtime.options import Options
from runtime.playback import Playback
from runtime.serving.sound import Sound
from runtime.serving.sound_queue import SoundQueue
from runtime.serving.stages import SpeechChunk, pack_chunks, unpack_audio
from runtime.token2wav.build import onnx_flow, onnx_vocoder
from runtime.token2wav.hops import ALIGNED_HOPS, EARLIEST_HOPS, STEADY_HOPS, HopPolicy
from runtime.token2wav.layout import Sizes

POLICIES = {"15,10,25": ALIGNED_HOPS, "15,10,10,15,25": STEADY_HOPS, "earliest": EARLIEST_HOPS}
PACES_MS = (80, 100, 110, 120, 130, 140, 150, 160, 180)
GROUP, FRAME_MS = 5, 200


class LocalStages:
    """Both stages in this process, off the event loop."""

    def __init__(self, folder: Path, streams: int) -> None:
        self._flow, self._vocoder = onnx_flow(folder, 1, streams), onnx_vocoder(folder, 1, streams)
        self.busy_s = 0.0

    async def speak(self, chunks: Sequence[SpeechChunk]) -> list[np.ndarray | EngineFault]:
        return await asyncio.get_running_loop().run_in_executor(None, self._speak, chunks)

    def _speak(self, chunks: Sequence[SpeechChunk]) -> list[np.ndarray | EngineFault]:
        began = time.perf_counter()
        arrays = pack_chunks(chunks)
        keys = {name: arrays[name] for name in ("stream_ids", "chunk_flags")}
        found = self._vocoder.run(keys | self._flow.run(arrays))
        self.busy_s += time.perf_counter() - began
        return unpack_audio(found["audio"], found["audio_lengths"])


class Listener:
    """Plays every sample as soon as it can."""

    def __init__(self, rate: int) -> None:
        self.playback, self.began, self.first = Playback(rate), time.monotonic(), 0.0

    def hear(self, samples: np.ndarray) -> None:
        """Takes the next samples."""
        now = time.monotonic()
        if len(samples) and not self.playback.samples:
            self.first = now
        self.playback.play(now, len(samples))


def fail(error: ServeError) -> None:
    """A measurement with errors is none."""
    raise error


class Room:
    """Listeners of all policies at one pace."""

    def __init__(self, options: Options, listeners: int) -> None:
        folder = options.path(options.token2wav.dir)
        self._sizes, self._ids = Sizes.read(folder), itertools.count()
        self.stages = LocalStages(folder, listeners * len(POLICIES))
        self._options, self._count = options, listeners

    async def run(self, pace_ms: float, frames: int, jitter: float) -> dict[str, list[Listener]]:
        """Speaks ``frames`` frames to every listener."""
        sounds = SoundQueue(self.stages, self._options.token2wav)
        heard: dict[str, list[Listener]] = {name: [] for name in POLICIES}
        tasks = []
        for seed, (name, hops) in itertools.product(range(self._count), POLICIES.items()):
            listener = Listener(self._sizes.sample_rate)
            heard[name].append(listener)
            policy = HopPolicy(hops, self._sizes.lookahead, self._sizes.block_tokens)
            sound = Sound(self._ids, self._sizes.voices[0], policy, listener.playback.rate, listener.hear, fail)
            times = np.random.default_rng(seed).lognormal(-(jitter**2) / 2, jitter, frames) * pace_ms / 1000
            tasks.append(self._speak(sound, sounds, times))
        await asyncio.gather(*tasks)
        return heard

    async def _speak(self, sound: Sound, sounds: SoundQueue, times: np.ndarray) -> None:
        tokens = np.random.default_rng(1).integers(0, self._sizes.vocab_size, GROUP * len(times))
        due = time.monotonic()
        for group, seconds in zip(tokens.reshape(-1, GROUP).tolist(), times, strict=True):
            due += float(seconds)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sound.push(group)
            sounds.offer(sound)
        sound.end_span()
        sounds.offer(sound)
        while not sound.done:
            await asyncio.sleep(0.01)


def summary(listeners: list[Listener]) -> dict[str, float]:
    """First audio, share of listeners who heard silence, and how much they heard."""
    silence = [1000 * listener.playback.silence_s for listener in listeners]
    first = [1000 * (listener.first - listener.began) for listener in listeners]
    return {
        "first_audio_ms": round(statistics.median(first), 1),
        "with_silence": round(sum(ms > 0 for ms in silence) / len(silence), 3),
        "silence_ms": round(statistics.mean(silence), 1),
    }


def main() -> int:
    """Prints a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder")
    parser.add_argument("--listeners", type=int, default=5, help="of every policy at every pace")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of an answer")
    parser.add_argument("--jitter", type=float, default=0.1)
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    room = Room(Options.read(arguments.out), arguments.listeners)
    frames = round(1000 * arguments.seconds / FRAME_MS)
    result: dict[str, Any] = {"jitter": arguments.jitter, "listeners": arguments.listeners, "paces": {}}
    print(f"{'frame ms':>8}  " + "  ".join(f"{name:>34}" for name in POLICIES))
    asyncio.run(room.run(20, 10, 0.0))  # warm-up
    for pace in PACES_MS:
        heard = asyncio.run(room.run(pace, frames, arguments.jitter))
        rows = {name: summary(listeners) for name, listeners in heard.items()}
        result["paces"][str(pace)] = rows
        cells = [
            f"first {row['first_audio_ms']:4.0f} ms, silent {row['with_silence']:4.0%} {row['silence_ms']:4.0f} ms"
            for row in rows.values()
        ]
        print(f"{pace:8}  " + "  ".join(f"{cell:>34}" for cell in cells))
    return finish(result, arguments.json)


if __name__ == "__main__":
    sys.exit(run_command(main))
