"""One compiled plan as a graph: named arrays on its device in, named arrays out. Not yet run on a GPU.

Stands where ``OnnxGraph`` stands on the ``cpu`` target. Shapes vary from call to call inside the plan's
profile; inputs are bound where they lie, so caches of gigabytes are never copied.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from runtime.errors import BuildError, EngineFault
from runtime.graphs.device import CudaDevice, Device
from runtime.graphs.executor import gpu_device
from runtime.graphs.memory import TorchMemory
from runtime.graphs.shapes import Profile
from runtime.graphs.tensorrt import INPUT, OUTPUT, Plan, Shape, TensorFacts, load_tensorrt

Tensors = dict[str, torch.Tensor]
PLAN_SUFFIX = ".plan"
ALIGNMENT = 256  # bytes, of every address that TensorRT is given


class PlanGraph:
    """Runs one plan. One thread at a time.

    Args:
        name: of the plan, for messages.
        profile: what the runtime will ask for; the plan must have been compiled for exactly this.
        plan: the loaded plan; its stream is the device's.
        device: where the plan runs.
        allocate: [shape], dtype name -> memory for an output.

    Raises:
        BuildError: the plan's inputs or their ranges are others.
    """

    def __init__(
        self, name: str, profile: Profile, plan: Plan, device: Device, allocate: Callable[[Shape, str], torch.Tensor]
    ) -> None:
        facts = plan.facts()
        self._inputs = check_profile(name, profile, facts)
        self._outputs = {fact.name: fact.dtype for fact in facts if fact.mode == OUTPUT}
        self._name, self._plan, self._device, self._allocate = name, plan, device, allocate

    def run(self, arrays: Tensors) -> Tensors:
        """All outputs by name, in fresh memory. Queued; the caller's stream waits for them, the host does not.

        Raises:
            EngineFault: an array is missing, of another type, or outside the profile.
        """
        bound = {name: self._bindable(name, arrays) for name in self._inputs}
        for name, tensor in bound.items():
            self._plan.set_shape(name, tuple(tensor.shape))
            self._plan.set_address(name, tensor.data_ptr())
        outputs = {name: self._allocate(self._plan.shape_of(name), dtype) for name, dtype in self._outputs.items()}
        for name, tensor in outputs.items():
            self._plan.set_address(name, tensor.data_ptr())
        self._device.follow_caller()
        self._plan.enqueue()
        self._device.lead_caller()
        return outputs

    def _bindable(self, name: str, arrays: Tensors) -> torch.Tensor:
        tensor = arrays.get(name)
        wanted = self._inputs[name]
        if tensor is None or tensor.dtype != getattr(torch, wanted):
            found = "is missing" if tensor is None else f"has type {tensor.dtype}"
            raise EngineFault(self._name, f"input {name} {found}, {wanted} is needed", "this is a fault of the server")
        tensor = tensor.contiguous()
        # A view that begins inside another tensor: TensorRT would read at a place that it must not.
        return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor


def check_profile(name: str, profile: Profile, facts: list[TensorFacts]) -> dict[str, str]:
    """Input names to dtypes.

    Raises:
        BuildError: the plan was compiled for other inputs or shapes; the message names both sides.
    """
    inputs = {fact.name: fact for fact in facts if fact.mode == INPUT}
    remedy = "run make build-engines again: the plan and options.json do not belong together"
    if inputs.keys() != profile.keys():
        raise BuildError(name, f"the plan takes {sorted(inputs)}, the runtime gives {sorted(profile)}", remedy)
    for key, range_ in profile.items():
        asked = (range_.low, range_.usual, range_.high)
        if inputs[key].ranges != asked:
            raise BuildError(f"{name}: {key}", f"is compiled for {inputs[key].ranges}, asked for {asked}", remedy)
    return {key: fact.dtype for key, fact in inputs.items()}


def open_plan(path: Path, profile: Profile, memory: TorchMemory) -> PlanGraph:
    """A plan file on the memory's GPU.

    Raises:
        BuildError: TensorRT or the file is missing, or the plan is not the one that is asked for.
    """
    if not path.exists():
        raise BuildError(path.name, f"not found in {path.parent}", "run make build-engines TARGET=tensorrt")
    gpu_device(memory.device.index)
    device = CudaDevice(memory.device.index)
    plan = Plan(load_tensorrt(), path.name, path.read_bytes(), device.stream)

    def allocate(shape: Shape, dtype: str) -> torch.Tensor:
        return torch.empty(shape, dtype=getattr(torch, dtype), device=memory.device)

    return PlanGraph(path.name, profile, plan, device, allocate)
