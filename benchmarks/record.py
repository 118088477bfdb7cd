"""How every program here keeps a result: machine, versions and commit, a file replaced as a whole, one last line.

Needs the standard library alone: ``benchmarks.gpu`` runs on bare machines.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

from runtime.manifest import installed

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("nvidia-pytriton", "tritonclient", "grpcio", "torch", "triton", "onnxruntime", "numpy", "hypothesis")
ASK_S = 20.0


def asked(*command: str) -> str:
    """What a short command prints; empty where it is missing, fails or hangs."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=ASK_S)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def gpus(facts: str = "name,memory.total,driver_version") -> list[str]:
    """These facts of each GPU, by default name, memory and driver; empty without one."""
    return asked("nvidia-smi", f"--query-gpu={facts}", "--format=csv,noheader").splitlines()


def machine() -> dict[str, Any]:
    """Processor, memory, GPUs, system: enough for an operator, and nothing that names the machine."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def load_average() -> float:
    """Processes that want a core, mean of the last minute: what else the machine did."""
    return round(os.getloadavg()[0], 2)


def commit() -> dict[str, Any]:
    """The commit of the checkout, and how many tracked files differ from it."""
    changed = asked("git", "status", "--porcelain", "--untracked-files=no")
    return {"commit": asked("git", "rev-parse", "HEAD"), "changed_files": len(changed.splitlines())}


@cache
def provenance() -> dict[str, Any]:
    """Date, commit, machine, load and versions, as they were at the first call."""
    date = datetime.now(UTC).isoformat(timespec="seconds")
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    return {"date": date, **commit(), "machine": machine(), "load_average": load_average(), "versions": versions}


def save(result: Mapping[str, Any], path: Path | None, indent: int | None = None) -> None:
    """Writes the result where a file is named; a reader never sees half of it."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.part")
    fresh.write_text(json.dumps(result, indent=indent) + "\n", "utf-8")
    fresh.replace(path)


def finish(line: Mapping[str, Any], path: Path | None, more: Mapping[str, Any] | None = None) -> int:
    """Saves the line with the rest and where it comes from, and prints it; returns the exit status, 1 if it failed."""
    save({**line, **(more or {}), **provenance()}, path)
    print(json.dumps(line), flush=True)
    return 0 if line.get("passed", True) else 1


def _version(package: str) -> str:
    try:
        return installed(package)
    except PackageNotFoundError:
        return ""


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()
