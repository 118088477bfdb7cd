"""Runs perf_analyzer against a server: one process per level and parameter set."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.perf.analyzer_install import Analyzer
from benchmarks.perf.clips import write_input_data
from benchmarks.perf.level import CLOSED, POISSON, failed_level, level
from benchmarks.perf.outcome import Outcome
from benchmarks.perf.profile import TruncatedExport, read_export
from client.access import OPEN, Access, metadata_of
from client.errors import ChatError
from client.protocol.tensors import FUN_AUDIO_CHAT

TRIES = 3  # of a level whose export was cut off
LEVEL_S = 1800.0
MAX_THREADS = 4  # threads that send; each handles many requests
LOAD_MODELS = {
    CLOSED: "closed loop: so many requests at once, the next one sent when one ends",
    POISSON: "open loop: requests at random (Poisson) times, whatever came back",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One load: how it arrives and how much of it."""

    kind: str
    value: float

    def __post_init__(self) -> None:
        if self.kind not in LOAD_MODELS:
            raise ValueError(f"kind: {self.kind!r} is none of {', '.join(LOAD_MODELS)}")
        if self.value <= 0:
            raise ValueError(f"value: {self.value} is not above 0")
        if self.kind == CLOSED and self.value != int(self.value):
            raise ValueError(f"value: {self.value} requests at once is no whole number")

    def options(self) -> list[str]:
        """perf_analyzer's options for it."""
        if self.kind == CLOSED:
            return ["--concurrency-range", f"{int(self.value)}"]
        # Start and end, because the end is 1 by default and a rate below it would be a sweep.
        return ["--request-rate-range", f"{self.value:g}:{self.value:g}:1", "--request-distribution", "poisson"]


def measure(
    analyzer: Analyzer,
    url: str,
    clips: list[np.ndarray],
    point: Point,
    requests: int,
    parameters: Mapping[str, Any],
    access: Access = OPEN,
) -> dict[str, Any]:
    """One level. A run that fails is a level full of errors, not an exception: the sweep goes on."""
    try:
        outcomes, seconds = analyzed(analyzer, url, clips, point, requests, parameters, access)
    except ChatError as error:
        return failed_level(point.kind, point.value, requests, error.message, parameters)
    return level(point.kind, point.value, outcomes, seconds, parameters)


def analyzed(
    analyzer: Analyzer,
    url: str,
    clips: list[np.ndarray],
    point: Point,
    requests: int,
    parameters: Mapping[str, Any],
    access: Access = OPEN,
) -> tuple[list[Outcome], float]:
    """Outcomes of one run of perf_analyzer, and how long it took.

    Raises:
        ChatError: it failed.
    """
    for attempt in range(1, TRIES + 1):
        with tempfile.TemporaryDirectory(prefix="fac_perf_") as scratch:
            data, export = Path(scratch) / "input.json", Path(scratch) / "export.json"
            write_input_data(clips, data)
            command = _command(analyzer, url, point, requests, parameters, data, export)
            _run([*command, *access_options(access)], analyzer)
            try:
                return read_export(export, str(parameters.get("mode", "s2s")))
            except TruncatedExport:
                if attempt == TRIES:
                    raise
    raise AssertionError("unreachable")


def parameter_option(name: str, value: Any) -> str:
    """`name:value:type`. Floats go as strings: perf_analyzer drops them without a word, our server reads them."""
    if isinstance(value, bool):
        return f"{name}:{str(value).lower()}:bool"
    return f"{name}:{value}:{'int' if isinstance(value, int) else 'string'}"


def access_options(access: Access) -> list[str]:
    """TLS and headers in perf_analyzer's words."""
    headers = [word for name, value in metadata_of(access.headers) for word in ("-H", f"{name}:{value}")]
    if access.tls is None:
        return headers
    files = {"root-certifications": access.tls.ca, "certificate-chain": access.tls.cert, "private-key": access.tls.key}
    given = [word for name, path in files.items() if path for word in (f"--ssl-grpc-{name}-file", str(path))]
    return [*headers, "--ssl-grpc-use-ssl", *given]


def _command(
    analyzer: Analyzer,
    url: str,
    point: Point,
    requests: int,
    parameters: Mapping[str, Any],
    data: Path,
    export: Path,
) -> list[str]:
    fixed = ["-m", FUN_AUDIO_CHAT.name, "-u", url, "-i", "grpc", "--streaming", "--async"]
    files = ["--input-data", str(data), "--profile-export-file", str(export)]
    chosen = [
        word for name, value in parameters.items() for word in ("--request-parameter", parameter_option(name, value))
    ]
    threads = ["--max-threads", str(MAX_THREADS)]
    return [str(analyzer.binary), *fixed, *files, *point.options(), "--request-count", str(requests), *threads, *chosen]


def _run(command: Sequence[str], analyzer: Analyzer) -> None:
    try:
        done = subprocess.run(
            command, env=analyzer.environment(), capture_output=True, text=True, errors="replace", timeout=LEVEL_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(type(error).__name__) from error
    if done.returncode:
        lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        telling = [line for line in lines if "rror" in line or "ailed" in line]
        raise _failed(f"exit status {done.returncode}: {(telling or lines or ['it said nothing'])[0][:200]}")


def _failed(reason: str) -> ChatError:
    return ChatError("INTERNAL", "perf_analyzer", reason)
