"""Frame loops over the golden checkpoint: torch engine, recorded twins of kernels, doubles of compiled engines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import chat_data as data
import torch
from rigs import golden_weights
from tensorrt_double import Double

from kernels.choice import Draws
from kernels.ops import Ops, twin_ops
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import load_tables, packed_loop, recorded_loop, torch_engines
from runtime.families.fun_audio_chat.profiles import backbone_profile, speech_profile
from runtime.frames.loop import FrameLoop

CPU = torch.device("cpu")
KINDS = ("torch", "recorded", "compiled")
STACKS = ("backbone", "speech")


@dataclass
class Rig:
    """A loop and what tests look at: the pools of both caches, and the doubles that its engines are."""

    loop: FrameLoop
    pools: list[torch.Tensor]
    doubles: list[Double] = field(default_factory=list)

    def wrap(self, stack: str, wrapper: Callable[[Callable], Any]) -> Any:
        """Puts ``wrapper`` before the calls of a stack and returns it."""
        number, model = STACKS.index(stack), self.loop.model
        if hasattr(model, "engines"):
            engine = model.engines[number]
            engine.run = made = wrapper(engine.run)
            return made
        table = getattr(model.steps, f"{stack}_stack")
        made = wrapper(table.stack)
        made.memory, made.shape = table.stack.memory, table.stack.shape
        setattr(model.steps, f"{stack}_stack", type(table)(made, table.tables))
        return made


def make(kind: str, options: EngineOptions, draws: Draws | None = None, ops: Ops | None = None, graphs: int = 0) -> Rig:
    """A loop of one of ``KINDS``; ``graphs``: recorded batch sizes of the compiled speech head."""
    config, ops = data.config(), ops or twin_ops()
    if kind == "recorded":
        loop = recorded_loop(config, options, CPU, ops=ops, draws=draws)
        stacks = loop.model.steps.backbone_stack.stack, loop.model.steps.speech_stack.stack
        return Rig(loop, [stack.memory for stack in stacks])
    if kind == "torch":
        weights = golden_weights()
        engines = torch_engines(config, options, weights)
        loop = packed_loop(config, options, engines, weights, CPU, False, ops, draws)
        return Rig(loop, [engine._pool for engine in engines])
    doubles = [
        Double("backbone", profile=backbone_profile(config, options)),
        Double("speech", graphs=graphs, profile=speech_profile(config, options)),
    ]
    engines = tuple(double.engine for double in doubles)
    loop = packed_loop(config, options, engines, load_tables(config, options, CPU), CPU, True, ops, draws)
    pools = [engine._pool.view(torch.float32).view(engine.shape.num_blocks, -1) for engine in engines]
    return Rig(loop, pools, doubles)
