"""One exported graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.errors import BuildError

CUDA_PROVIDER, CPU_PROVIDER = "CUDAExecutionProvider", "CPUExecutionProvider"


def has_provider(name: str) -> bool:
    """Whether this ONNX Runtime was built with an execution provider."""
    return name in ort.get_available_providers()


class OnnxGraph:
    """A session with named arrays in and out.

    Args:
        path: the ONNX file.
        threads: threads inside an operator. Every model is a process of its own; more threads than
            cores spin against each other.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        if not path.exists():
            raise BuildError(path.name, f"not found in {path.parent}", "run make build-engines")
        providers = [name for name in (CUDA_PROVIDER, CPU_PROVIDER) if has_provider(name)]
        self._session = ort.InferenceSession(str(path), options, providers=providers)
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, arrays), strict=True))
