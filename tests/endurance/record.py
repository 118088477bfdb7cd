"""The end of a run: its result as the last line and in a file, with what it was measured on."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.perf.machine import busy, describe
from runtime.manifest import installed
from runtime.supervisor.launch import ServerProcess

PACKAGES = ("nvidia-pytriton", "tritonclient", "grpcio", "torch", "onnxruntime", "numpy", "hypothesis")
ROOT = Path(__file__).parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every proof: the built folder, the seed, where the result goes."""
    parser.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--save", type=Path, default=None, help="file for the result with machine, commit, versions")
    parser.add_argument("--log", type=Path, default=None, help="file for the server's log")


def serve(arguments: argparse.Namespace) -> ServerProcess:
    """A server of the built folder, with a fresh log: what an old one says of readiness would be believed."""
    provenance()
    if arguments.log is not None:
        arguments.log.unlink(missing_ok=True)
    return ServerProcess(arguments.out, log_file=arguments.log)


@cache
def provenance() -> dict[str, Any]:
    """Machine, load, commit, versions, date: as they were when a run began, whoever asks at its end."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len(_git("status", "--porcelain", "--untracked-files=no").splitlines()),
        "machine": describe(),
        "load_average": busy(),
        "versions": {name: installed(name) for name in PACKAGES},
    }


def save(result: Mapping[str, Any], path: Path | None) -> None:
    """Writes the result; a reader never sees half of it."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps(result) + "\n", "utf-8")
    temporary.replace(path)


def finish(line: Mapping[str, Any], more: Mapping[str, Any], path: Path | None) -> int:
    """Prints the line and saves it with the rest; returns the exit status, 1 when the verdict failed."""
    save({**line, **more, **provenance()}, path)
    print(json.dumps(line), flush=True)
    return 0 if line["passed"] else 1


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""
