"""A compiled TensorRT-LLM engine behind the ``Engine`` interface, on the bare TensorRT API.

One call of ``run`` is one enqueue: host arrays into an arena, at most a few copies to the device, shapes
that changed, and no wait for the device. Not yet run on a GPU; here a double executes what is bound.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import torch

from runtime.engines.base import EngineOutputs
from runtime.engines.trtllm.arena import HostArena
from runtime.engines.trtllm.buffers import StepBuffers
from runtime.engines.trtllm.check import check_tensors
from runtime.engines.trtllm.spec import EngineProfile
from runtime.engines.trtllm.step_check import check_step
from runtime.engines.trtllm.step_graphs import Captured, Decision, GraphCache, GraphKey, with_bound
from runtime.errors import EngineFault
from runtime.graphs.device import Device
from runtime.graphs.tensorrt import Plan, Shape

logger = logging.getLogger(__name__)


class TrtLlmEngine:
    """Implements ``runtime.engines.base.Engine``. One thread at a time.

    The outputs of ``run`` are views of the engine's own memory: the next ``run`` overwrites them. They
    belong to the caller's stream, as the inputs do.

    Args:
        name: of the engine, for messages.
        profile: what the engine was compiled for.
        plan: the loaded engine; its stream is the device's.
        device: where it lives.
        graphs: captured graphs to keep, 0 for none.

    Raises:
        EngineMismatch: the engine's tensors are not those of the profile.
    """

    def __init__(self, name: str, profile: EngineProfile, plan: Plan, device: Device, graphs: int = 0) -> None:
        check_tensors(name, profile, plan.facts())
        self.shape, self._name = profile.shape, name
        self._profile, self._plan, self._device = profile, plan, device
        self._graphs = GraphCache(graphs)
        self._buffers = StepBuffers(profile, device)
        dtype: torch.dtype = getattr(torch, profile.dtype)
        self._pool = device.device_bytes(prod(profile.shape.pool_shape) * dtype.itemsize)
        for tensor, address in self._buffers.device_addresses().items():
            plan.set_address(tensor, address)
        self._is_complete = False

    def pool_address(self) -> int:
        """Address of the KV pool."""
        return self._pool.data_ptr()

    def copy_block(self, source: int, target: int) -> None:
        """See ``Engine.copy_block``. The engine's own stream keeps the order, behind what was scrubbed."""
        self._device.follow_caller()
        blocks = self._pool.view(self.shape.num_blocks, -1)
        self._device.copy(blocks[target], blocks[source])

    def scrub(self, blocks: Sequence[int]) -> None:
        """See ``Engine.scrub``. On the caller's stream, which the engine's own waits for before its next step."""
        self._pool.view(self.shape.num_blocks, -1)[list(blocks)] = 0

    @torch.inference_mode()
    def run(self, inputs_embeds: torch.Tensor, bindings: Mapping[str, np.ndarray]) -> EngineOutputs:
        """See ``Engine.run``. Rows of another dtype are converted.

        Raises:
            EngineFault: the step is not one that the engine may be given, or TensorRT refused it. What the attention
                plugin itself refuses ends the process: its checks throw where nothing may be thrown.
                ``check_step`` asks before, and the supervisor starts the server again.
        """
        shapes = check_step(self._profile, tuple(inputs_embeds.shape), bindings, self.pool_address())
        self._device.follow_caller()
        turn = self._buffers.next_turn()
        self._buffers.write_device(turn, inputs_embeds, bindings)
        key = self._graphs.key(bindings, self.shape.max_seq_len)
        decision = self._graphs.decide(key)
        if key is None or decision is Decision.RUN:
            self._enqueue(turn.host, shapes, bindings)
        elif decision is Decision.REPLAY:
            self._graphs.get(key).replay()
        else:
            self._capture(key, shapes, bindings)
        turn.end(self._device.mark())
        self._device.lead_caller()
        return EngineOutputs(self._buffers.hidden_states(len(inputs_embeds)), self._buffers.logits(_sequences(shapes)))

    def _enqueue(self, host: HostArena, shapes: Mapping[str, Shape], bindings: Mapping[str, np.ndarray]) -> None:
        """Binds what a step changes and queues it."""
        self._buffers.write_host(host, bindings)
        for name in self._buffers.host_names:
            self._plan.set_address(name, host.address(name))
        for name, shape in shapes.items():
            self._plan.set_shape(name, shape)
        if not self._is_complete:
            self._plan.check_complete()
            self._is_complete = True
        self._plan.enqueue()

    def _capture(self, key: GraphKey, shapes: Mapping[str, Shape], bindings: Mapping[str, np.ndarray]) -> None:
        """Runs the step the ordinary way, then records the same call for the steps to come."""
        host = self._buffers.new_host_set()
        self._enqueue(host, shapes, with_bound(bindings, key))
        try:
            self._graphs.put(key, Captured(self._device.capture(self._plan.enqueue), host))
        except (EngineFault, RuntimeError) as error:
            # The step itself has run; the engine goes on without graphs.
            self._graphs.switch_off()
            logger.warning("%s: CUDA graphs switched off, a step cannot be captured: %s", self._name, error)


def _sequences(shapes: Mapping[str, Shape]) -> int:
    return shapes["last_token_ids"][0]
