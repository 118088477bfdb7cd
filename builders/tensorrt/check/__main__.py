"""Do all graphs hold with a real builder? Compiled by TensorRT-RTX through our own ``compile_plan``, without a GPU.

* ``built FOLDER``: all graphs of a built folder, one JSON line.
* ``full``: what a build compiles, at the released sizes with random weights, each graph exported and compiled in
  processes of its own; time and peak memory of each. The file is written after each and keeps what was there.
* ``export``: graphs with random weights, by the exporter of another torch (``--exporter``).
* ``compile GRAPH``: one graph that ``export`` wrote.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from builders import upstream
from builders.tensorrt.check import exporters, rtx
from client.protocol.command_line import run_command

SIZES = ("smallest", "full")
KIB = 1024


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(dest="command", required=True)
    built = commands.add_parser("built")
    built.add_argument("folder", type=Path)
    full = commands.add_parser("full")
    full.add_argument("--save", type=Path, required=True)
    full.add_argument("--without", nargs="*", default=[], metavar="GRAPH", help="the encoder where memory is short")
    export = commands.add_parser("export")
    export.add_argument("graphs", nargs="*", help="all without any")
    export.add_argument("--exporter", choices=[*upstream.EXPORTERS], help="of this torch; the installed one's without")
    compile_ = commands.add_parser("compile")
    compile_.add_argument("graph")
    for one in (export, compile_):
        one.add_argument("--sizes", choices=SIZES, default="smallest")
    for one in (built, export, compile_):
        one.add_argument("--to", type=Path, required=True)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0; what fails raises."""
    given = parser().parse_args(arguments)
    print(json.dumps(COMMANDS[given.command](given)))
    return 0


def export(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds and bytes by graph."""
    if given.exporter:
        exporters.lay_over(upstream.EXPORTERS[given.exporter].fetch())
    import torch.onnx

    from builders.tensorrt.check.graphs import GRAPHS, export_random, named_sizes

    found: dict[str, Any] = {"exporter": str(Path(torch.onnx.__file__).parents[2]), "graphs": {}}
    for name in given.graphs or GRAPHS:
        began = time.monotonic()
        files = export_random(name, named_sizes(given.sizes), given.to)
        found["graphs"][name] = _record(began, sum(path.stat().st_size for path in files))
    return found


def compile_one(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds, bytes and types of one plan."""
    from builders.tensorrt.check.graphs import named_sizes, random_profiles

    profiles = random_profiles(named_sizes(given.sizes))
    return _compiled(given.to / given.graph, given.to / "plans", profiles[given.graph])


def built(given: argparse.Namespace) -> dict[str, Any]:
    """The same of every graph of a folder."""
    from builders.tensorrt.check.graphs import built_profiles

    return {path.name: _compiled(path, given.to, profile) for path, profile in built_profiles(given.folder).items()}


def _compiled(graph: Path, out: Path, profile: Any) -> dict[str, Any]:
    from builders.tensorrt.plans import PlanSpec, compile_plan
    from runtime.graphs.plan import PLAN_SUFFIX

    counts: Counter[str] = Counter()
    sys.path.append(str(upstream.RTX.fetch()))
    rtx.install(counts)
    began = time.monotonic()
    [plan] = compile_plan(PlanSpec(graph, (out / graph.name).with_suffix(PLAN_SUFFIX), profile), out / "times.cache")
    return _record(began, plan.stat().st_size) | {"layers": dict(sorted(counts.items()))}


def _record(began: float, size: int) -> dict[str, Any]:
    used = resource.getrusage(resource.RUSAGE_SELF)  # of the process so far; one graph has one of its own in ``full``
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_host_bytes": used.ru_maxrss * KIB,
        "bytes": size,
    }


def full(given: argparse.Namespace) -> dict[str, Any]:
    """Exports and compiles graph by graph, each in a process of its own: peaks do not add up."""
    from builders.tensorrt.check.graphs import COMPILED

    found: dict[str, Any] = {"builder": upstream.RTX.requirements[0], "architecture": rtx.ARCHITECTURE, "graphs": {}}
    if given.save.exists():
        found["graphs"] = json.loads(given.save.read_text("utf-8"))["graphs"]
    given.save.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in COMPILED:
            if name in given.without:
                continue
            rest = ["--sizes", "full", "--to", folder]
            exported = _child(["export", name, *rest])["graphs"][name]
            found["graphs"][name] = {"export": exported, "compile": _child(["compile", name, *rest])}
            given.save.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
            print(name, found["graphs"][name], flush=True)
    return found


def _child(arguments: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "builders.tensorrt.check", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


COMMANDS = {"built": built, "full": full, "export": export, "compile": compile_one}

if __name__ == "__main__":
    sys.exit(run_command(main))
