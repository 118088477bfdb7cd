"""One compiled plan in TensorRT: loaded, asked for its tensors, bound, queued. The only caller of ``tensorrt``.

Knows nothing of what the tensors mean. ``tensorrt`` itself is handed in, so that this file imports where
it is not installed; every call is recorded in ``tests/contracts/tensorrt_runtime.json``.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass
from mmap import mmap
from types import ModuleType
from typing import Any

from runtime.errors import BuildError, EngineFault

INPUT, OUTPUT = "input", "output"
Shape = tuple[int, ...]
PROFILE = 0  # engines have one optimisation profile
TRT_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32", "INT64": "int64"}


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """One tensor as a loaded engine reports it.

    ``ranges``: smallest, likeliest and largest shape of profile 0; None for outputs, which have none.
    """

    name: str
    mode: str
    dtype: str
    shape: Shape
    ranges: tuple[Shape, Shape, Shape] | None = None

    def __str__(self) -> str:
        text = f"{self.mode} {self.name} {self.dtype} {list(self.shape)}"
        return text if self.ranges is None else f"{text}, {list(self.ranges[0])} to {list(self.ranges[2])}"


def load_tensorrt() -> ModuleType:
    """The ``tensorrt`` module.

    Raises:
        BuildError: it is not installed here.
    """
    try:
        return importlib.import_module("tensorrt")
    except ImportError as error:
        raise BuildError(
            "tensorrt",
            f"cannot be imported ({error})",
            "run this inside the container (compose.yaml), or install it beside torch",
        ) from None


class Plan:
    """A deserialised engine with one execution context.

    Args:
        trt: the ``tensorrt`` module.
        name: of the engine, for messages.
        plan: the serialised engine; its plugins must have been loaded.
        stream: handle of the stream that all steps are queued on.

    Raises:
        BuildError: TensorRT refused it; its own log says why.
    """

    def __init__(self, trt: Any, name: str, plan: bytes | mmap, stream: int) -> None:
        self._trt, self._name, self._stream = trt, name, stream
        self._logger = trt.Logger(trt.Logger.WARNING)
        self._runtime = trt.Runtime(self._logger)  # kept: the engine uses both as long as it lives
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise _refused(name, "deserialize")
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise _refused(name, "create a context for")
        self._context.set_optimization_profile_async(PROFILE, stream)
        self._shapes: dict[str, Shape] = {}

    def facts(self) -> list[TensorFacts]:
        """Every input and output as the engine reports it."""
        return [self._fact(self._engine.get_tensor_name(i)) for i in range(self._engine.num_io_tensors)]

    def _fact(self, name: str) -> TensorFacts:
        engine = self._engine
        is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
        dtype = engine.get_tensor_dtype(name).name
        ranges = None
        if is_input:
            smallest, likeliest, largest = (tuple(s) for s in engine.get_tensor_profile_shape(name, PROFILE))
            ranges = (smallest, likeliest, largest)
        return TensorFacts(
            name=name,
            mode=INPUT if is_input else OUTPUT,
            dtype=TRT_DTYPES.get(dtype, dtype),
            shape=tuple(engine.get_tensor_shape(name)),
            ranges=ranges,
        )

    def layers(self) -> list[dict[str, Any]]:
        """What the engine is made of, as TensorRT itself tells it: one kernel or more each."""
        told = self._engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        found: list[dict[str, Any]] = json.loads(told)["Layers"]
        return found

    def set_address(self, name: str, address: int) -> None:
        """Binds memory. Raises EngineFault."""
        if not self._context.set_tensor_address(name, address):
            raise EngineFault(self._name, f"no address can be bound to {name}", "see the server's log")

    def set_shape(self, name: str, shape: Shape) -> None:
        """Sets an input's shape where it changed: TensorRT prepares every plugin anew after a change.

        Raises:
            EngineFault: the shape is outside the profile.
        """
        if self._shapes.get(name) == shape:
            return
        if not self._context.set_input_shape(name, shape):
            raise EngineFault(self._name, f"{name} cannot have shape {list(shape)}", "build the engine for it")
        self._shapes[name] = shape

    def shape_of(self, name: str) -> Shape:
        """Shape of an output, for the inputs' shapes of now."""
        return tuple(self._context.get_tensor_shape(name))

    def check_complete(self) -> None:
        """Raises EngineFault naming the inputs that have no shape or address yet."""
        missing = self._context.infer_shapes()
        if missing:
            raise EngineFault(self._name, f"inputs are not bound: {', '.join(missing)}", "see the server's log")

    def enqueue(self) -> None:
        """Queues one run with what is bound. Raises EngineFault."""
        if not self._context.execute_async_v3(self._stream):
            raise EngineFault(self._name, "TensorRT did not queue the step", "see the server's log")


def _refused(name: str, what: str) -> BuildError:
    return BuildError(
        name,
        f"TensorRT cannot {what} this engine",
        "build it again on this GPU, inside this image: make build-engines",
    )
