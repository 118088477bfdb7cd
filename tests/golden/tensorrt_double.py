"""A double of the ``tensorrt`` runtime that enforces its rules and executes.

A serialised "engine" is the JSON of its tensors. A step is computed by the torch engine from the memory
behind the bound addresses: host values as they are when the step is queued (the plugin reads them then),
device values when it runs, the KV pool where the pool pointer says. Names, dtypes, shapes, profile ranges,
places, alignment and stream are checked, and host memory must not change before the step has run.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
from enum import Enum
from math import prod

import numpy as np
import torch
from device_double import STREAM, LazyDevice
from rigs import PROFILES, torch_engine

from runtime.engines.torch_engine import TorchEngine
from runtime.engines.trtllm.engine import TrtLlmEngine
from runtime.engines.trtllm.spec import HOST, EngineProfile
from runtime.graphs.device import ALIGNMENT
from runtime.graphs.tensorrt import Plan

DataType = Enum("DataType", ["FLOAT", "HALF", "BF16", "INT32", "INT64"])
TensorIOMode = Enum("TensorIOMode", ["NONE", "INPUT", "OUTPUT"])
DTYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int32": "INT32", "int64": "INT64"}


class Dims(tuple):
    """As TensorRT's: a sequence that ``isinstance`` calls no tuple."""


def serialise(profile: EngineProfile, name: str = "", **change) -> bytes:
    """The engine that a builder makes of a profile; ``change`` alters the tensor ``name``, None removes it."""
    tensors = {}
    for mode, specs in (("INPUT", profile.inputs), ("OUTPUT", profile.outputs)):
        for spec in specs:
            tensors[spec.name] = {
                "mode": mode, "dtype": DTYPES[spec.dtype], "shape": list(spec.shape), "location": spec.location,
                "ranges": [list(r) for r in spec.ranges], "dims": [d.name for d in spec.dims],
            }  # fmt: skip
    if name and change.get("tensor", ...) is None:
        del tensors[name]
    elif name:
        tensors.setdefault(name, {"dims": [], "location": "device", "mode": "INPUT"}).update(change)
    return json.dumps(tensors).encode()


class Logger:
    WARNING = 2

    def __init__(self, min_severity: int) -> None:
        assert min_severity == self.WARNING


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self.shape_changes = 0

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        assert (profile_index, stream_handle) == (0, STREAM)
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        tensor = self._engine.tensors[name]
        assert tensor["mode"] == "INPUT"
        low, _, high = tensor["ranges"]
        if len(shape) != len(low) or any(not a <= s <= b for a, s, b in zip(low, shape, high, strict=True)):
            return False
        self._shapes[name] = tuple(shape)
        self.shape_changes += 1
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert memory % ALIGNMENT == 0, f"{name} is not aligned"
        self._addresses[name] = memory
        return name in self._engine.tensors

    def infer_shapes(self) -> list[str]:
        inputs = [n for n, t in self._engine.tensors.items() if t["mode"] == "INPUT"]
        return [n for n in inputs if n not in self._shapes or n not in self._addresses]

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert stream_handle == STREAM
        assert not self.infer_shapes()
        tensors, sizes = self._engine.tensors, {}
        for name, shape in self._shapes.items():
            for dim, size in zip(tensors[name]["dims"], shape, strict=True):
                assert sizes.setdefault(dim, size) == size, f"{name}: {dim} is {size} here and {sizes[dim]} elsewhere"
        outputs = {
            n: tuple(sizes.get(d, s) if s < 0 else s for d, s in zip(t["dims"], t["shape"], strict=True))
            for n, t in tensors.items()
            if t["mode"] == "OUTPUT"
        }
        views = {n: self._view(n, shape) for n, shape in (self._shapes | outputs).items()}
        host = {n: v.copy() for n, v in views.items() if tensors[n]["location"] == HOST}
        device = self._engine.runtime.device
        frozen = device.capturing
        device.push(lambda: self._run(views, host, outputs, frozen))
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self._engine.tensors[name]
        dtype = {v: k for k, v in DTYPES.items()}[tensor["dtype"]]
        size = prod(shape) * np.dtype(dtype).itemsize
        address = self._addresses[name]
        kind = self._engine.runtime.device.kind(address, size)
        assert kind == tensor["location"], f"{name} must be on the {tensor['location']}, is {kind}"
        return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)

    def _run(self, views, host, outputs, frozen) -> None:
        for name, values in host.items():
            assert np.array_equal(views[name], values), f"{name} was changed while its step was in flight"
        bindings = {n: host.get(n, v) for n, v in views.items() if n not in outputs}
        rows = torch.from_numpy(bindings.pop("inputs_embeds"))
        found = self._engine.runtime.compute(rows, {n: v.copy() for n, v in bindings.items()}, frozen)
        for name in outputs:
            views[name][:] = found[name].numpy()


class Engine:
    num_optimization_profiles = 1

    def __init__(self, runtime: Runtime, tensors: dict) -> None:
        self.runtime, self.tensors = runtime, tensors

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode[self.tensors[name]["mode"]]

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[self.tensors[name]["dtype"]]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims(self.tensors[name]["shape"])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[Dims]:
        assert self.tensors[name]["mode"] == "INPUT" and profile_index == 0
        return [Dims(r) for r in self.tensors[name]["ranges"]]

    def create_execution_context(self) -> Context:
        self.runtime.context = Context(self)
        return self.runtime.context


class Runtime:
    device: LazyDevice
    compute: Callable

    def __init__(self, logger: Logger) -> None:
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Engine | None:
        try:
            return Engine(self, json.loads(bytes(serialized_engine)))
        except ValueError:
            return None


class TensorRt:
    """Stands for the module. ``compute(rows, bindings, frozen)`` returns the outputs by name."""

    Logger, DataType, TensorIOMode = Logger, DataType, TensorIOMode

    def __init__(self, device: LazyDevice, compute: Callable) -> None:
        self.runtimes: list[Runtime] = []

        class Bound(Runtime):
            def __init__(runtime, logger: Logger) -> None:
                super().__init__(logger)
                runtime.device, runtime.compute = device, compute
                self.runtimes.append(runtime)

        self.Runtime = Bound


def torch_compute(engine: TorchEngine) -> Callable:
    """Computes with a torch engine, in the pool that the bindings point to."""
    shape = engine.shape

    def compute(rows: torch.Tensor, bindings: dict[str, np.ndarray], frozen: bool) -> dict[str, torch.Tensor]:
        address = int(bindings["host_kv_cache_pool_pointers"][0, 0])
        memory = (ctypes.c_char * (prod(shape.pool_shape) * 4)).from_address(address)
        engine._pool = torch.frombuffer(memory, dtype=torch.float32).view(shape.pool_shape)
        if frozen:  # a captured generation step: host lengths are bounds, the device's are exact
            exact = bindings["sequence_length"] - 1
            assert (bindings["host_past_key_value_lengths"] >= exact).all(), "a graph was used past its bound"
        out = engine.run(rows, bindings)
        return {"hidden_states": out.hidden_states, "logits": out.logits}

    return compute


class Double:
    """A ``TrtLlmEngine`` over the doubles, with the doubles at hand."""

    def __init__(
        self,
        stack: str,
        graphs: int = 0,
        hands_over: bool = True,
        plan: bytes | None = None,
        profile: EngineProfile | None = None,
    ) -> None:
        profile = profile or PROFILES[stack]
        self.device = LazyDevice(hands_over)
        self.trt = TensorRt(self.device, torch_compute(torch_engine(stack, profile)))
        loaded = Plan(self.trt, stack, plan or serialise(profile), self.device.stream)
        self.engine = TrtLlmEngine(stack, profile, loaded, self.device, graphs)
        self.context = self.trt.runtimes[-1].context


def double_engine(stack: str) -> TrtLlmEngine:
    return Double(stack).engine
