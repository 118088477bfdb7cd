"""Is there room to build at all? Asked before the first byte is written."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from builders.tensorrt.capacity import GIB
from runtime.errors import BuildError

# ONNX files and plans beside the language engines: 5.2 GB of the encoder in float32, 2 GB of token2wav, timing caches.
SPARE_DISK = 9 * GIB
# Estimate: the library holds the checkpoint, TensorRT a copy in its own format, and the serialised plan is a third.
HOST_COPIES = 3
SPARE_HOST = 4 * GIB
SPARE_GPU = 4 * GIB  # candidates of the kernel search beside the weights
MEMINFO, CGROUP_LIMIT, CGROUP_USED = (
    Path("/proc/meminfo"),
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory.current"),
)


@dataclass(frozen=True, slots=True)
class Needs:
    """Final sizes by path, so that what an interrupted build left counts; ``largest``: of weights held at once."""

    files: dict[Path, int]
    largest: int


def check_room(out: Path, needs: Needs, gpu_free: int, host_free: int | None = None) -> None:
    """Compares what a build needs with what is free; a folder that is complete needs nothing.

    Raises:
        BuildError: disk, host memory or GPU memory is short; the message names both sizes and the remedy.
    """
    missing = sum(max(0, size - _size(path)) for path, size in needs.files.items())
    if not missing:
        return
    disk = shutil.disk_usage(_existing(out)).free
    _compare("disk", f"under {out}", missing + SPARE_DISK, disk, "choose another OUT or free space")
    host = available_memory() if host_free is None else host_free
    remedy = "close other programs, raise the container's memory limit or use a larger machine"
    _compare("host memory", "to build", HOST_COPIES * needs.largest + SPARE_HOST, host, remedy)
    remedy = "stop what else uses the GPU (nvidia-smi lists it)"
    _compare("GPU memory", "to build", needs.largest + SPARE_GPU, gpu_free, remedy)


def available_memory() -> int:
    """Bytes of host memory that may be taken without swapping, the container's own limit included."""
    lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    try:
        return min(available, int(CGROUP_LIMIT.read_text()) - int(CGROUP_USED.read_text()))
    except (OSError, ValueError):  # no such control group, or its limit reads "max"
        return available


def _compare(what: str, where: str, needed: int, free: int, remedy: str) -> None:
    if needed > free:
        raise BuildError(what, f"{needed / GIB:.1f} GiB are needed {where}, {free / GIB:.1f} are free", remedy)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _existing(path: Path) -> Path:
    return next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
