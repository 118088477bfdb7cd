"""A double of TensorRT for plans of ONNX graphs: its builder keeps the graph and the profile, its runtime executes.

A "plan" is the path of the ONNX file with the profile. A run reads the bound addresses, computes with ONNX
Runtime, and writes to the bound addresses. What TensorRT would refuse is refused: unknown names, shapes
outside the profile, inputs without shape or address.
"""

import ctypes
import json
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import tensorrt_double
import torch
from device_double import STREAM
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidProtobuf
from tensorrt_double import DTYPES, DataType, Logger, TensorIOMode  # noqa: F401 (the double is used as a module)

TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}


class Context(tensorrt_double.Context):
    _done = None

    def set_tensor_address(self, name, memory):
        self._addresses[name] = memory
        return name in self._engine.tensors

    def get_tensor_shape(self, name):
        """TensorRT infers shapes; this computes the outputs and looks. Inputs are bound before shapes are asked for."""
        self._done = self._done or self._compute()
        return self._done[name].shape

    def execute_async_v3(self, stream_handle):
        assert stream_handle == STREAM
        done, self._done = self._done or self._compute(), None
        for name, array in done.items():
            memory = np.ascontiguousarray(array)
            ctypes.memmove(self._addresses[name], memory.ctypes.data, memory.nbytes)
        return True

    def _compute(self):
        inputs = {}
        for item in self._engine.session.get_inputs():
            dtype, shape = np.dtype(TYPES[item.type]), self._shapes[item.name]
            raw = (ctypes.c_char * (int(np.prod(shape)) * dtype.itemsize)).from_address(self._addresses[item.name])
            inputs[item.name] = np.frombuffer(raw, dtype).reshape(shape)
        names = [item.name for item in self._engine.session.get_outputs()]
        return dict(zip(names, self._engine.session.run(names, inputs), strict=True))


class Engine(tensorrt_double.Engine):
    def __init__(self, plan):
        content = json.loads(bytes(plan))
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = ort.InferenceSession(content["onnx"], options, providers=["CPUExecutionProvider"])
        both = {"INPUT": self.session.get_inputs(), "OUTPUT": self.session.get_outputs()}
        tensors = {
            item.name: {
                "mode": mode, "dtype": DTYPES[TYPES[item.type]], "ranges": content["profile"].get(item.name),
                "shape": [size if isinstance(size, int) else -1 for size in item.shape],
            }
            for mode, items in both.items() for item in items
        }  # fmt: skip
        super().__init__(None, tensors)

    def create_execution_context(self):
        return Context(self)


class Runtime:
    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def deserialize_cuda_engine(self, plan):
        try:
            return Engine(plan)
        except ValueError:
            return None


class Config:
    def __init__(self):
        self.builder_optimization_level, self.cleared, self.profiles, self.cache = None, [], [], None

    def set_memory_pool_limit(self, pool, size):
        assert pool == "workspace" and size > 0

    def clear_flag(self, flag):
        self.cleared.append(flag)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile.shapes)
        return len(self.profiles) - 1

    def create_timing_cache(self, content):
        return SimpleNamespace(serialize=lambda: content + b"+")

    def set_timing_cache(self, cache, ignore_mismatch):
        assert ignore_mismatch is False
        self.cache = cache
        return True

    def get_timing_cache(self):
        return self.cache


class Builder:
    configs = ()  # a list while a test looks

    def __init__(self, logger):
        assert isinstance(logger, Logger)

    def create_network(self, flags=0):
        assert flags == 1 << 3, "strongly typed"
        return SimpleNamespace(onnx=None)

    def create_builder_config(self):
        config = Config()
        Builder.configs = [*Builder.configs, config]
        return config

    def create_optimization_profile(self):
        shapes = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *ranges: shapes.__setitem__(name, ranges))

    def build_serialized_network(self, network, config):
        [profile] = config.profiles
        inputs = {
            i.name: i for i in ort.InferenceSession(network.onnx, providers=["CPUExecutionProvider"]).get_inputs()
        }
        assert inputs.keys() == profile.keys(), "every input has a range, and no other"
        for name, item in inputs.items():
            for axis, size in enumerate(item.shape):
                sizes = {shape[axis] for shape in profile[name]}
                assert not isinstance(size, int) or sizes == {size}, (name, axis, "is fixed in the graph")
        return json.dumps({"onnx": network.onnx, "profile": profile}).encode()


class OnnxParser:
    num_errors = 1

    def __init__(self, network, logger):
        self._network = network

    def parse_from_file(self, path):
        try:
            ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        except InvalidProtobuf:
            return False
        self._network.onnx = path
        return True

    def get_error(self, index):
        assert index == 0
        return "unreadable"


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 3


class MemoryPoolType:
    WORKSPACE = "workspace"


class ProfilingVerbosity:
    DETAILED = "detailed"


class BuilderFlag:
    TF32 = "tf32"


class Device:
    """Nothing is late here: what is queued has run."""

    stream = STREAM

    def follow_caller(self):
        pass

    def lead_caller(self):
        pass


def allocate(shape, dtype):
    return torch.empty(tuple(shape), dtype=getattr(torch, dtype))
