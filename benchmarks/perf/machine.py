"""The machine that a number was measured on, in words that tell an operator enough and nobody too much."""

from __future__ import annotations

import http.client
import os
import platform
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

GPU_MEMORY = "nv_gpu_memory_used_bytes"  # Triton's own family
PROBE_S = 5.0
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is no way to a local server


def describe() -> dict[str, Any]:
    """Processor, memory, GPUs, system."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": gpus(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def busy() -> float:
    """Processes that want a core, mean of the last minute: what else the machine did."""
    return round(os.getloadavg()[0], 2)


def gpus() -> list[str]:
    """Name, memory and driver of each GPU; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=PROBE_S)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def scrape(metrics_url: str) -> dict[str, float]:
    """Sums of all Prometheus samples by name; empty when nobody answers."""
    try:
        with _OPENER.open(metrics_url, timeout=PROBE_S) as page:
            text = page.read().decode()
    except (OSError, http.client.HTTPException):
        return {}
    values: dict[str, float] = {}
    for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.M):
        values[name] = values.get(name, 0.0) + float(value)
    return values


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()
