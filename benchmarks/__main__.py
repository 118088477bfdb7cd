"""Speed of the frame loop, without and with a server. The last line is one JSON object.

Load model: closed loop, greedy streams of equal length that start together (prompt of 43 positions, as a 2.3 s
question gives), penalty 1.2 as by default, one torch thread. Every figure is the median of some runs after one warm-up.

* ``frames_per_second``, ``frames_per_cpu_second`` by streams: all streams together, in process: engines, sampler,
  scheduling, prefill included. CPU seconds are those of all threads of this process: compare these where the machine
  does other work too.
* ``mid``: the same for a checkpoint of 50 million parameters with random weights, which is made for it.
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
import math
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.loop import IterationBench, LoopBench
from benchmarks.record import finish, machine
from benchmarks.server import server_ms
from builders.tiny_chat import MID, write_tiny_chat
from client.protocol.command_line import run_command
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import all_shapes
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.products import exact_products

STREAMS = (1, 8, 16, 32)
FRAMES, MID_FRAMES = 200, 50  # of each stream
MID_RUNS = 2
SYSTEM = 200
CROWD = 8  # streams of the figures of one iteration


def speeds(name: str, bench: LoopBench, runs: int) -> dict[str, dict[str, float]]:
    """Frames per second and per CPU second for every number of streams."""
    found: dict[str, dict[str, float]] = {"frames_per_second": {}, "frames_per_cpu_second": {}}
    for count in STREAMS:
        speed = bench.speed(count, runs)
        found["frames_per_second"][str(count)] = round(speed.wall, 1)
        found["frames_per_cpu_second"][str(count)] = round(speed.cpu, 1)
        print(
            f"{name}, {count:2} streams: {speed.wall:7.1f} frames/s, {speed.cpu:7.1f} frames per CPU second", flush=True
        )
    return found


def mid_size(options: Options, runs: int) -> dict[str, Any]:
    """The speeds of a checkpoint of middle size, written for this and removed again."""
    with tempfile.TemporaryDirectory(prefix="fun_audio_chat_mid_") as folder:
        write_tiny_chat(Path(folder), sizes=MID)
        config = ModelConfig.read(Path(folder))
        bench = LoopBench(config, options.engine, max(STREAMS), MID_FRAMES)
    parameters = sum(map(math.prod, all_shapes(config).values()))
    return {"parameters": parameters} | speeds(f"{parameters / 1e6:.0f} million parameters", bench, runs)


def iteration(bench: LoopBench, tokenizer: ChatTokenizer, runs: int) -> dict[str, float]:
    """Overhead and sampler of one iteration."""
    parts = IterationBench(bench, tokenizer).parts(CROWD, runs)
    print(
        f"one iteration, {CROWD} streams: overhead {parts.overhead:.3f} ms, sampler {parts.sampler:.3f} ms, "
        f"engines {parts.engines:.3f} ms"
    )
    return {f"overhead_ms_per_frame_{CROWD}": round(parts.overhead, 4), f"sampler_ms_{CROWD}": round(parts.sampler, 4)}


def main() -> int:
    """Prints a table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder")
    parser.add_argument("--runs", type=int, default=3, help="of the tiny checkpoint; the other one has fewer")
    parser.add_argument("--no-server", action="store_true", help=f"leave server_ms_{CROWD} out")
    parser.add_argument("--json", type=Path, help="also write the result here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ.update(exact_products())  # as the supervisor does; read at the first product
    options = Options.read(arguments.out)
    config = ModelConfig.read(options.path(options.model))
    bench = LoopBench(config, options.engine, max(STREAMS), FRAMES)
    result: dict[str, Any] = {"machine": machine(), "torch_threads": 1, "torch": torch.__version__}
    result |= speeds("tiny", bench, arguments.runs)
    first = result[f"first_frame_ms_system_{SYSTEM}"] = bench.first_frames(SYSTEM, 5 * arguments.runs)
    print(f"first frame behind a system message of {SYSTEM}: new {first['new']} ms, known {first['known']} ms")
    result |= iteration(bench, ChatTokenizer(config.directory), arguments.runs)
    result["mid"] = mid_size(options, min(arguments.runs, MID_RUNS))
    if not arguments.no_server:
        added = result[f"server_ms_{CROWD}"] = round(server_ms(arguments.out, CROWD, FRAMES), 4)
        print(f"the server adds {added:.3f} ms per iteration with {CROWD} streams")
    return finish(result, arguments.json)


if __name__ == "__main__":
    sys.exit(run_command(main))
