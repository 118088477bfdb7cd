"""One exported graph in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

from runtime.errors import BuildError


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
        available = ort.get_available_providers()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        self._session = ort.InferenceSession(str(path), options, providers=[p for p in wanted if p in available])
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        return dict(zip(self._outputs, self._session.run(self._outputs, arrays), strict=True))
