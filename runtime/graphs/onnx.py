"""One exported graph in ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.errors import BuildError
from runtime.heap import HeapTrim

if TYPE_CHECKING:  # a machine that runs everything in torch has no ONNX Runtime
    import onnxruntime as ort

CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"


def has_provider(name: str) -> bool:
    """Whether there is an ONNX Runtime that was built with an execution provider."""
    try:
        import onnxruntime as ort
    except ImportError:
        return False
    return name in ort.get_available_providers()


def onnx_version() -> str:
    """Of the installed ONNX Runtime, or that there is none."""
    try:
        import onnxruntime as ort
    except ImportError:
        return "not installed"
    return str(ort.__version__)


def open_session(path: Path, threads: int, providers: Sequence[Any]) -> ort.InferenceSession:
    """A session on the first provider. Raises BuildError when the file is missing."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Shapes vary from call to call: the arena doubles at every new peak and gives nothing back, a pattern is kept for
    # every shape ever seen. Without them, calls are as fast and hold less than half of the memory (docs/soak.md).
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    if not path.exists():
        raise BuildError(path.name, f"not found in {path.parent}", "run make build-engines")
    return ort.InferenceSession(str(path), options, providers=list(providers))


class OnnxGraph:
    """A session with named arrays in and out. On the CPU even where there is a GPU: that is what the target says.

    Args:
        path: the ONNX file.
        threads: threads inside an operator. Every model is a process of its own; more threads than
            cores spin against each other.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = open_session(path, threads, [CPU_PROVIDER])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._heap = HeapTrim()

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        found = dict(zip(self._outputs, self._session.run(self._outputs, arrays), strict=True))
        self._heap.tick()
        return found
