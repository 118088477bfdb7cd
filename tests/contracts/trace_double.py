"""Tensors and the network that they are traced into, with every call checked against its recorded signature."""

from collections import OrderedDict
from enum import Enum
from functools import wraps

import recorded

DataType = Enum("DataType", ["FLOAT", "HALF", "BF16", "INT32", "INT64"])
DTYPES = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "bfloat16": DataType.BF16,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
}
NAMES = {value: name for name, value in DTYPES.items()}


class ContractViolation(AssertionError):
    """Our code asked for something that is not recorded."""


def enforced(path):
    """Calls must fit the recorded signature; ``self`` is not counted."""
    signature = recorded.load().signatures[path]

    def wrap(function):
        @wraps(function)
        def call(*args, **kwargs):
            is_bound = function.__code__.co_varnames[:1] in (("self",), ("cls",))
            found = signature.problems(len(args) - is_bound, list(kwargs))
            if found:
                raise ContractViolation(f"{path}: {'; '.join(found)}")
            return function(*args, **kwargs)

        return call

    return wrap


class Trace:
    """The network being built."""

    current = None

    def __init__(self, plugin_config):
        self.plugin_config = plugin_config
        self.inputs, self.outputs, self.values = {}, {}, {}

    def declare(self, tensor, dim_range):
        if not isinstance(dim_range, OrderedDict) or len(dim_range) != len(tensor.shape):
            raise ContractViolation(f"{tensor.name}: one range for every axis is needed, in order")
        ranges = []
        for (axis, profiles), size in zip(dim_range.items(), tensor.shape, strict=True):
            if len(profiles) != 1:
                raise ContractViolation(f"{tensor.name}: {axis} has {len(profiles)} profiles")
            one = profiles[0] if isinstance(profiles[0], list) else [profiles[0]] * 3
            if len(one) != 3 or not 1 <= one[0] <= one[1] <= one[2] or (size != -1 and set(one) != {size}):
                raise ContractViolation(f"{tensor.name}: {axis} cannot be {one}")
            ranges.append([axis, *one])
        for other in self.inputs.values():
            for axis, *one in other["dims"]:
                if any(axis == a and one != b for a, *b in ranges):
                    raise ContractViolation(f"{tensor.name}: {axis} has another range elsewhere")
        if tensor.name in self.inputs:
            raise ContractViolation(f"{tensor.name} is declared twice")
        self.inputs[tensor.name] = {"dtype": NAMES[tensor.dtype], "dims": ranges}


class Tensor:
    """Axes are numbers or the names of dynamic ones. ``value`` is None unless the network is to be computed."""

    value = None

    @enforced("tensorrt_llm.functional.Tensor")
    def __init__(self, name=None, dtype=None, shape=None, dim_range=None, is_network_input=True):
        assert is_network_input and isinstance(dtype, DataType)
        self.name, self.dtype, self.shape = name, dtype, list(shape)
        Trace.current.declare(self, dim_range)
        self.axes = [axis if size == -1 else size for axis, size in zip(dim_range, self.shape, strict=True)]

    @classmethod
    def inner(cls, axes, dtype, value=None):
        tensor = object.__new__(cls)
        tensor.name, tensor.axes, tensor.dtype, tensor.value = None, list(axes), dtype, value
        return tensor

    def then(self, function):
        """``function`` of the value where there is one."""
        return None if self.value is None else function(self.value)

    def __add__(self, b):
        if self.axes != b.axes or self.dtype != b.dtype:
            raise ContractViolation(f"{self.axes} {self.dtype} + {b.axes} {b.dtype}")
        return Tensor.inner(self.axes, self.dtype, self.then(lambda value: value + b.value))

    @enforced("tensorrt_llm.functional.Tensor.mark_output")
    def mark_output(self, name=None, dtype=None):
        if not isinstance(dtype, str) or name in Trace.current.outputs:
            raise ContractViolation(f"output {name} {dtype}")
        Trace.current.outputs[name] = {"dtype": NAMES[DTYPES[dtype]], "axes": self.axes}
        Trace.current.values[name] = self.value
