"""Memory and addresses of one compiled engine's tensors, step after step.

Device tensors have one home each, so their addresses never change and a captured graph stays valid.
Host tensors have a few homes that take turns: the attention plugin reads them while a step is queued, and
TensorRT wants them untouched until the step has run, while the next step is already being written.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
import torch

from runtime.engines.trtllm.arena import HostArena, Layout, copy_runs, plan_layout
from runtime.engines.trtllm.spec import HIDDEN_STATES, HOST, INPUT_EMBEDS, LOGITS, EngineProfile, TensorSpec
from runtime.graphs.device import Device, Mark

INDIRECTION = "cache_indirection"  # zeros made once: one beam never reads them, only their shape counts
TURNS = 12  # calls in flight: two frames of the speech head, five calls each, so that the host is a frame ahead


class Turn:
    """The host memory of one step: ``host`` for host inputs, ``staging`` as source of copies to the device."""

    def __init__(self, host: HostArena, staging: HostArena) -> None:
        self.host, self.staging = host, staging
        self._passed: Mark | None = None

    def wait(self) -> None:
        """Until the step that used it last has run: two frames ago, so there is hardly ever anything to wait for."""
        if self._passed is not None:
            self._passed.wait()

    def end(self, mark: Mark) -> None:
        """The step that uses it has been queued; it has run when ``mark`` is passed."""
        self._passed = mark


class StepBuffers:
    """All memory of one engine except its KV pool and its workspace."""

    def __init__(self, profile: EngineProfile, device: Device) -> None:
        self._device, self._profile = device, profile
        host = [spec for spec in profile.inputs if spec.location == HOST]
        staged = [s for s in profile.inputs if s.location != HOST and s.name not in (INPUT_EMBEDS, INDIRECTION)]
        self.host_names = tuple(spec.name for spec in host)
        self._host_layout, self._staged_layout = plan_layout(host), plan_layout(staged)
        self._turns = [Turn(self.new_host_set(), self._arena(self._staged_layout)) for _ in range(TURNS)]
        self._next = 0
        self._staged = device.device_bytes(self._staged_layout.size)
        self._on_device: dict[str, np.ndarray] = {}
        whole = [s for s in (*profile.inputs, *profile.outputs) if s.name in _WHOLE]
        self._whole = {spec.name: _typed(device, spec) for spec in whole}
        if HIDDEN_STATES not in self._whole:
            self._whole[HIDDEN_STATES] = self._whole[INPUT_EMBEDS].new_zeros(0, profile.shape.hidden_size)

    def new_host_set(self) -> HostArena:
        """A home for host inputs. A captured graph gets one of its own, which is not written to any more."""
        return self._arena(self._host_layout)

    def _arena(self, layout: Layout) -> HostArena:
        return HostArena(layout, self._device.host_bytes(layout.size))

    def device_addresses(self) -> dict[str, int]:
        """Where all device tensors lie, for ever."""
        base = self._staged.data_ptr()
        found = {name: base + region.begin for name, region in self._staged_layout.regions.items()}
        bound = {spec.name for spec in (*self._profile.inputs, *self._profile.outputs)}
        return found | {name: tensor.data_ptr() for name, tensor in self._whole.items() if name in bound}

    def next_turn(self) -> Turn:
        """Host memory that no step in flight uses."""
        turn = self._turns[self._next]
        self._next = (self._next + 1) % TURNS
        turn.wait()
        return turn

    def write_host(self, host: HostArena, bindings: Mapping[str, np.ndarray]) -> None:
        """Stores the host inputs of a step."""
        for name in self.host_names:
            host.write(name, bindings[name])

    def write_device(self, turn: Turn, inputs_embeds: torch.Tensor, bindings: Mapping[str, np.ndarray]) -> None:
        """Queues the copies that bring embeddings and changed arrays to the device."""
        self._device.copy(self._whole[INPUT_EMBEDS][: len(inputs_embeds)], inputs_embeds)
        changed = {}
        for name in self._staged_layout.regions:
            array = bindings[name]
            if self._on_device.get(name) is not array:
                turn.staging.write(name, array)
                self._on_device[name] = array
                changed[name] = array.nbytes
        for run in copy_runs(self._staged_layout, changed):
            self._device.copy(self._staged[run], turn.staging.memory[run])

    def hidden_states(self, rows: int) -> torch.Tensor:
        """[rows, hidden] of the step, or [0, hidden] where the engine has no such output."""
        return self._whole[HIDDEN_STATES][:rows]

    def logits(self, sequences: int) -> torch.Tensor:
        """[sequences, output size] float32 of the step."""
        return self._whole[LOGITS][:sequences]


_WHOLE = (INPUT_EMBEDS, INDIRECTION, HIDDEN_STATES, LOGITS)


def _typed(device: Device, spec: TensorSpec) -> torch.Tensor:
    """Zeros of the tensor's largest shape in device memory."""
    dtype: torch.dtype = getattr(torch, spec.dtype)
    largest = spec.ranges[2]
    return device.device_bytes(prod(largest) * dtype.itemsize).view(dtype).view(largest)
