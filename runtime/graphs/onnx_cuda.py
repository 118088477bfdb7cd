"""An exported graph in ONNX Runtime over tensors that lie on a device: bound where they are, never copied.

Stands where a torch module stands in ``DeviceGraph``, which keeps the buffers and rounds sizes up. The CPU
provider is bound by the same code, which is how it is tested.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from runtime.errors import BuildError
from runtime.graphs.executor import EagerExecutor
from runtime.graphs.onnx import CPU_PROVIDER, CUDA_PROVIDER, has_provider, onnx_version, open_session
from runtime.graphs.options import ONNX, TORCH
from runtime.graphs.recorded import DeviceGraph, Rule

OUTPUT_TYPES = {"tensor(float)": torch.float32, "tensor(int64)": torch.int64}
Sizes = tuple[tuple[str, tuple[int, ...]], ...]


def prefers_onnx(option: str, engine: str, provider: str = CUDA_PROVIDER) -> bool:
    """Whether a stage runs its exported graph: where ``engine`` says so, or leaves it open and ``provider`` is there.

    Args:
        option: where ``engine`` was set, for the message.

    Raises:
        BuildError: it says so and the provider is not there.
    """
    if engine == TORCH:
        return False
    is_there = has_provider(provider)
    if engine == ONNX and not is_there:
        raise BuildError(
            option,
            f"is {ONNX}, but this ONNX Runtime ({onnx_version()}) has no {provider}",
            "install onnxruntime-gpu in place of onnxruntime, or set auto",
        )
    return is_there


def onnx_graph(path: Path, device: torch.device, rule: Rule) -> DeviceGraph:
    """An exported graph on a device. Raises BuildError when the file is missing or the provider does not load."""
    module = OnnxModule(path, device)
    return DeviceGraph(EagerExecutor(device), module, module.outputs, rule)


class OnnxModule:
    """Takes tensors of ``device`` by name, gives the outputs in order, in fresh memory of the device."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._device, self._index = device, device.index or 0
        self._session = open_session(path, threads=1, providers=[_provider(device)])
        if device.type == "cuda" and CUDA_PROVIDER not in self._session.get_providers():
            # Its CUDA or cuDNN did not load: ONNX Runtime goes on with the CPU, and says so in its log only.
            problem = f"{CUDA_PROVIDER} of ONNX Runtime {onnx_version()} does not load here"
            raise BuildError(path.name, problem, "install the CUDA and cuDNN that it asks for, or set engine=torch")
        found = self._session.get_outputs()
        self.outputs = tuple(output.name for output in found)
        self._types = [OUTPUT_TYPES[output.type] for output in found]
        self._shapes: dict[Sizes, list[tuple[int, ...]]] = {}

    def __call__(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """One run. ONNX Runtime has a stream of its own, and its run ends when its work is done."""
        bound = {name: tensor.contiguous() for name, tensor in inputs.items()}
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()
        made = [
            torch.empty(shape, dtype=dtype, device=self._device)
            for shape, dtype in zip(self._shapes_for(bound), self._types, strict=True)
        ]
        binding = self._binding(bound)
        for name, tensor in zip(self.outputs, made, strict=True):
            binding.bind_output(name, *self._place(tensor))
        self._session.run_with_iobinding(binding)
        return tuple(made)

    def _shapes_for(self, inputs: dict[str, torch.Tensor]) -> list[tuple[int, ...]]:
        """Shapes of the outputs; new sizes of inputs are run once into memory of ONNX Runtime's own."""
        key = tuple((name, tuple(tensor.shape)) for name, tensor in inputs.items())
        if key not in self._shapes:
            binding = self._binding(inputs)
            for name in self.outputs:
                binding.bind_output(name, self._device.type, self._index)
            self._session.run_with_iobinding(binding)
            self._shapes[key] = [tuple(value.shape()) for value in binding.get_outputs()]
        return self._shapes[key]

    def _binding(self, inputs: dict[str, torch.Tensor]) -> Any:
        binding = self._session.io_binding()
        for name, tensor in inputs.items():
            binding.bind_input(name, *self._place(tensor))
        return binding

    def _place(self, tensor: torch.Tensor) -> tuple[str, int, Any, tuple[int, ...], int]:
        kind = np.int64 if tensor.dtype == torch.int64 else np.float32
        return self._device.type, self._index, kind, tuple(tensor.shape), tensor.data_ptr()


def _provider(device: torch.device) -> Any:
    if device.type != "cuda":
        return CPU_PROVIDER
    # Float32 as exported: the pitch net must have it. A search for the fastest convolution of every new size
    # would take seconds.
    settings = {"device_id": str(device.index or 0), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    return (CUDA_PROVIDER, settings)
