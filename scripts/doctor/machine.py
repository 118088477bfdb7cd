"""Checks Python, libraries, tritonserver, GPU, disk and the shared memory of the Python backend."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.record import gpus
from runtime.manifest import installed
from runtime.supervisor.bundle import find_install, python_library
from runtime.supervisor.errors import InstallError
from scripts.doctor.finding import FAIL, OK, WARN, Finding

SETUP = "make setup"
# Distribution -> module, of what server and client import.
LIBRARIES = {
    "numpy": "numpy",
    "torch": "torch",
    "transformers": "transformers",
    "onnxruntime": "onnxruntime",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "tritonclient": "tritonclient.grpc",
    "grpcio": "grpc",
    "nvidia-pytriton": "pytriton",
    "fun-audio-chat-triton": "runtime",
}
CLIENT_LIBRARY = "tritonclient"  # every part but the engines needs it
GIB = 2**30
LOW_DISK_GIB, NO_DISK_GIB = 10.0, 0.5  # a build of the released model writes tens of GiB, of the tiny one 0.3
SHARED_MEMORY = Path("/dev/shm")
LOW_SHARED_GIB = 0.25  # the Python backend maps a few MiB per model and grows with long clips


def check_python() -> Finding:
    """The version that the bundled stub is linked to, with its shared library."""
    try:
        library = python_library()
    except InstallError as error:
        return Finding("python", FAIL, f"{platform.python_version()}; {error.problem}", error.remedy)
    return Finding("python", OK, f"{platform.python_version()} with {library.name}")


def check_environment() -> Iterator[Finding]:
    """One finding where this Python is no virtual environment and has nothing of the project."""
    if sys.prefix == sys.base_prefix and not list(importlib.metadata.distributions(name=CLIENT_LIBRARY)):
        yield Finding("environment", FAIL, f"no .venv; {sys.executable} has not the libraries of this project", SETUP)


def check_libraries() -> Iterator[Finding]:
    """Each library must be installed and load; one finding for all that do."""
    fine = []
    for name, module in LIBRARIES.items():
        try:
            version = installed(name)
            importlib.import_module(module)
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, FAIL, "is not installed", SETUP)
            continue
        except Exception as error:  # a broken library may raise anything
            words = f"does not load ({type(error).__name__}: {str(error)[:100]})"
            yield Finding(name, FAIL, words, f"rm -rf .venv && {SETUP}")
            continue
        if name == "numpy" and int(version.split(".")[0]) >= 2:
            words = f"{version}: the bundled Triton passes tensors of 0 bytes with numpy 2"
            yield Finding(name, FAIL, words, "pip install 'numpy<2'")
            continue
        fine.append(f"{name} {version}")
    yield Finding("libraries", OK, ", ".join(fine) or "none")


def check_triton() -> Finding:
    """The server binary."""
    try:
        install = find_install()
    except InstallError as error:
        return Finding("tritonserver", FAIL, error.problem, error.remedy)
    return Finding("tritonserver", OK, install.command[0])


def check_gpu(target: str) -> Finding:
    """GPU and driver, as far as the target needs them."""
    found = gpus()
    if not found:
        if target == "cpu":
            return Finding("gpu", OK, "none; target cpu needs none")
        return Finding(
            "gpu",
            FAIL,
            f"nvidia-smi finds none; target {target} needs one",
            "install NVIDIA's driver, or serve a cpu build",
        )
    if target != "cpu" and not _torch_sees_gpu():
        return Finding(
            "gpu", FAIL, f"{'; '.join(found)}; torch cannot use it", "install the torch build for this driver's CUDA"
        )
    return Finding("gpu", OK, "; ".join(found))


def check_disk(folder: Path) -> Finding:
    """Room for builds."""
    place = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(place).free / GIB
    words = f"{free:.1f} GiB free for {folder}"
    if free < NO_DISK_GIB:
        return Finding("disk", FAIL, words, "free space, or build elsewhere: make build-engines OUT=<dir>")
    if free < LOW_DISK_GIB:
        return Finding("disk", WARN, words, "enough for the tiny checkpoint, not for the released model")
    return Finding("disk", OK, words)


def check_shared_memory() -> Finding:
    """Tensors travel between Triton's processes through /dev/shm."""
    if not SHARED_MEMORY.is_dir():
        return Finding("shared memory", FAIL, f"{SHARED_MEMORY} is missing", f"mount a tmpfs at {SHARED_MEMORY}")
    free = shutil.disk_usage(SHARED_MEMORY).free / GIB
    words = f"{free:.2f} GiB free in {SHARED_MEMORY}"
    if free < LOW_SHARED_GIB:
        return Finding("shared memory", FAIL, words, "docker run --shm-size=1g, or remove what fills it")
    return Finding("shared memory", OK, words)


def _torch_sees_gpu() -> bool:
    try:
        import torch
    except Exception:  # reported by check_libraries
        return False
    return bool(torch.cuda.is_available())
