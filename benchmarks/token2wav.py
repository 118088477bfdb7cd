"""Cost of a chunk of sound as an answer grows, against rendering the prefix again, and in batches.

A net with random weights that is large enough for arithmetic to count, through the same stages and
graphs as the server's, one thread, in process. The last line is one JSON object.

* ``chunk_100_over_10``: cost of the chunks from number 100 on over that of those from number 10 on
  (medians of ``--chunks`` chunks, taken in turns), flow plus vocoder.
* ``speedup_30s``: rendering the whole prefix again for every chunk of a 30 s answer, as public
  deployments do, over the cached stages; same graphs, same hops, sum over all chunks.
* ``batch_8_over_1``: eight streams' chunks in one call over one stream's chunk in a call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import finish
from builders.export_token2wav import export_token2wav
from builders.steps import Builder
from builders.tiny_cosyvoice import NetSizes, write_tiny_cosyvoice
from client.protocol.command_line import run_command
from runtime.contracts import ChunkFlag
from runtime.errors import BuildError
from runtime.manifest import Manifest
from runtime.token2wav.build import onnx_flow, onnx_vocoder
from runtime.token2wav.hops import DEFAULT_HOPS, ChunkCutter, Cut, HopPolicy
from runtime.token2wav.layout import Sizes

NET = NetSizes(dim=256, depth=6, heads=4, head_dim=64, base_channels=128, pitch_channels=128)
MAX_STREAMS, NOISE_SECONDS = 16, 60
ANSWER_S, BATCH = 30, 8
EARLY, LATE = 10, 100


def built(folder: Path) -> Path:
    """The exported net; made once."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        manifest = Manifest.read(folder)
    except BuildError:
        manifest = Manifest("cpu", {})
    builder = Builder(folder, manifest, lambda line: print(line, file=sys.stderr))

    def export() -> list[Path]:
        write_tiny_cosyvoice(folder / "cosyvoice3", NET)
        return export_token2wav(folder / "cosyvoice3", folder / "token2wav", None, noise_seconds=NOISE_SECONDS)

    sources = [
        "builders/export_token2wav.py",
        "builders/onnx_export.py",
        "builders/tiny_cosyvoice.py",
        "runtime/token2wav",
    ]
    builder.step("token2wav", [], sources, NET, export)
    builder.manifest.write(folder)
    return folder / "token2wav"


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one call of each stage."""

    flow: float
    vocoder: float

    @property
    def total(self) -> float:
        """Both stages."""
        return self.flow + self.vocoder


class Bench:
    """Both stages and streams of random tokens."""

    def __init__(self, folder: Path) -> None:
        self.sizes = Sizes.read(folder)
        self._flow = onnx_flow(folder, 1, MAX_STREAMS)
        self._vocoder = onnx_vocoder(folder, 1, MAX_STREAMS)
        self._random = np.random.default_rng(0)

    def cuts(self, tokens: int) -> list[Cut]:
        """Chunks of an answer with the default hops."""
        cutter = ChunkCutter(HopPolicy(DEFAULT_HOPS, self.sizes.lookahead))
        return cutter.push(self._random.integers(0, self.sizes.vocab_size, tokens).tolist()) + cutter.finish()

    def call(self, rows: list[tuple[int, ChunkFlag, tuple[int, ...]]]) -> Cost:
        """One call of both stages: stream, flag and tokens of every chunk."""
        keys = {
            "stream_ids": np.array([stream for stream, _, _ in rows]),
            "chunk_flags": np.array([int(flag) for _, flag, _ in rows], np.int32),
        }
        chunk = {
            "voices": np.array([self.sizes.voices[0].encode()] * len(rows), np.object_),
            "tokens": np.array([token for _, _, tokens in rows for token in tokens], np.int32),
            "token_lengths": np.array([len(tokens) for _, _, tokens in rows], np.int32),
        }
        began = time.perf_counter()
        mel = self._flow.run(keys | chunk)
        between = time.perf_counter()
        self._vocoder.run(keys | mel)
        return Cost(between - began, time.perf_counter() - between)

    def stream(self, stream: int, tokens: int) -> Iterator[Cost]:
        """Costs of one stream's chunks, each made when it is asked for."""
        for cut in self.cuts(tokens):
            yield self.call([(stream, cut.flag, cut.tokens)])

    def release(self, *streams: int) -> None:
        """Forgets streams."""
        self.call([(stream, ChunkFlag.RELEASE, ()) for stream in streams])


def growth(bench: Bench, chunks: int) -> dict[str, list[Cost]]:
    """Costs of first chunks, of those from number 10 on and of those from number 100 on, taken in turns."""
    tokens = 25 * (LATE + chunks + 2)
    early, late = bench.stream(1, tokens), bench.stream(2, tokens)
    for stream, first in ((early, EARLY), (late, LATE)):
        for _ in range(first - 1):
            next(stream)
    costs: dict[str, list[Cost]] = {"1": [], str(EARLY): [], str(LATE): []}
    for i in range(chunks):
        costs["1"].append(next(bench.stream(3 + i % 4, 25)))
        costs[str(EARLY)].append(next(early))
        costs[str(LATE)].append(next(late))
    bench.release(*range(1, 7))
    return costs


def cached_and_recomputed(bench: Bench) -> tuple[list[Cost], list[Cost]]:
    """Costs of all chunks of an answer, with caches and from nothing; chunk by chunk in turns."""
    cached, recomputed = list[Cost](), list[Cost]()
    known: tuple[int, ...] = ()
    for cut in bench.cuts(ANSWER_S * 25):
        cached.append(bench.call([(1, cut.flag, cut.tokens)]))
        known += cut.tokens
        recomputed.append(bench.call([(2, ChunkFlag.START | (cut.flag & ChunkFlag.FINAL), known)]))
        bench.release(2)
    return cached, recomputed


def batching(bench: Bench, chunks: int) -> tuple[list[Cost], list[Cost]]:
    """Costs of one stream's chunks and of eight streams' chunks in one call, taken in turns."""
    tokens = 25 * (chunks + 12)
    streams = [bench.cuts(tokens) for _ in range(BATCH + 1)]
    alone, together = [], []
    for turn in range(10 + chunks):
        alone.append(bench.call([(0, streams[0][turn].flag, streams[0][turn].tokens)]))
        cuts = [cuts[turn] for cuts in streams[1:]]
        together.append(bench.call([(1 + i, cut.flag, cut.tokens) for i, cut in enumerate(cuts)]))
    bench.release(*range(BATCH + 1))
    return alone[10:], together[10:]


def milliseconds(costs: list[Cost]) -> dict[str, float]:
    """Medians of both stages and of their sum."""
    names = ("flow", "vocoder", "total")
    return {name: round(1000 * statistics.median(getattr(cost, name) for cost in costs), 2) for name in names}


def main() -> int:
    """Prints a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/bench-token2wav"), help="where the net is kept")
    parser.add_argument("--chunks", type=int, default=20, help="chunks of every median")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    bench = Bench(built(arguments.out))
    result: dict[str, Any] = {"net": str(NET), "hops": DEFAULT_HOPS, "chunks": arguments.chunks, "threads": 1}
    medians = {name: milliseconds(costs) for name, costs in growth(bench, arguments.chunks).items()}
    for name, values in medians.items():
        print(
            f"chunk {name:>3}: {values['total']:7.1f} ms (flow {values['flow']:.1f}, vocoder {values['vocoder']:.1f})"
        )
    result["chunk_ms"] = medians
    for part, key in (("total", "chunk_100_over_10"), ("flow", "flow_100_over_10"), ("vocoder", "vocoder_100_over_10")):
        result[key] = round(medians[str(LATE)][part] / medians[str(EARLY)][part], 3)
    print(f"chunk {LATE} / chunk {EARLY}: {result['chunk_100_over_10']:.3f}")
    alone, together = map(milliseconds, batching(bench, arguments.chunks))
    result |= {"batch_ms": {"1": alone, str(BATCH): together}}
    result["batch_8_over_1"] = round(together["total"] / alone["total"], 3)
    print(
        f"{BATCH} streams in one call: {together['total']:.1f} ms, {result['batch_8_over_1']:.2f} x one stream's call"
    )
    cached, recomputed = cached_and_recomputed(bench)
    totals = [sum(cost.total for cost in costs) for costs in (cached, recomputed)]
    result |= {"cached_s": round(totals[0], 3), "recomputed_s": round(totals[1], 3), "chunks_30s": len(cached)}
    result["speedup_30s"] = round(totals[1] / totals[0], 2)
    result["real_time_factor"] = round(totals[0] / ANSWER_S, 3)
    print(f"{ANSWER_S} s answer, {len(cached)} chunks: {totals[0]:.2f} s with caches, {totals[1]:.2f} s anew each time")
    print(f"speed-up {result['speedup_30s']:.1f}")
    return finish(result, arguments.json)


if __name__ == "__main__":
    sys.exit(run_command(main))
