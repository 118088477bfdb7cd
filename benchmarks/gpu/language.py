"""The language side with random weights: both stacks, their recordings and the frame loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from benchmarks.gpu.counts import Counts
from builders.released import BenchSizes
from kernels.ops import Ops
from runtime.engines.kv_cache import KvCache
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.answer import Answer
from runtime.families.fun_audio_chat.build import steps_loop
from runtime.families.fun_audio_chat.recorded import RecordedFrames, RecordedModel
from runtime.families.fun_audio_chat.stacks import build_steps, matrix_for
from runtime.families.fun_audio_chat.tensors import all_shapes
from runtime.frames.loop import FrameLoop
from runtime.graphs.executor import Executor
from runtime.params import AnswerParams, SamplingParams
from runtime.scheduling.stream import Prompt, Stream

NEVER = 1e9  # seconds: no stream pauses for its listener
SEED = 0
TOKENS_PER_BLOCK = 32


def random_weights(
    shapes: dict[str, tuple[int, ...]], device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Normal numbers made on the device, scaled so that activations keep their size; norms are one."""
    generator = torch.Generator(device).manual_seed(SEED)
    tensors = {}
    for name, shape in shapes.items():
        if len(shape) == 1:
            tensors[name] = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype, device=device)
            continue
        noise = torch.empty(shape, dtype=dtype, device=device).normal_(generator=generator)
        tensors[name] = noise if "embed_tokens" in name else noise.div_(math.sqrt(math.prod(shape[1:])))
    return tensors


class LanguageBench:
    """Both stacks on one device, with room for all streams at once."""

    def __init__(
        self, sizes: BenchSizes, executor: Executor, ops: Ops, dtype: torch.dtype, linear: str, fused: bool
    ) -> None:
        self.sizes, self.executor, self.ops = sizes, executor, ops
        most = max(*sizes.streams, *sizes.sustained)
        per_stream = -(-(sizes.question + sizes.context) // TOKENS_PER_BLOCK) * TOKENS_PER_BLOCK
        self.options = EngineOptions(
            max_streams=most,
            max_positions=sizes.positions,
            kv_positions=max(most * per_stream, sizes.positions),
            tokens_per_block=TOKENS_PER_BLOCK,
            prefill_chunk=sizes.prefill,
            lead_s=NEVER,
            fused=fused,
        )
        weights = random_weights(all_shapes(sizes.model), executor.device, dtype)
        self.encoder_weights = {name: weights.pop(name) for name in list(weights) if "continu" in name}
        self.steps = build_steps(sizes.model, self.options, weights, ops, matrix_for(linear, executor.device))
        self.counts = Counts(self.steps, self._group)
        self._loop: FrameLoop | None = None
        self.weights = {name: t for name, t in weights.items() if ".layers." not in name}

    def loop(self) -> FrameLoop:
        """The frame loop, always the same and with everything recorded: no figure holds a recording."""
        if self._loop is None:
            self._loop = steps_loop(self.sizes.model, self.options, self.steps, self.weights, self.executor)
            self._loop.model.prepare()
        return self._loop

    def frames(self) -> RecordedFrames:
        """The recordings of the loop."""
        model = self.loop().model
        assert isinstance(model, RecordedModel)
        return model._frames

    def clear(self) -> None:
        """Ends whatever a part that failed has left in the loop."""
        if self._loop is not None:
            scheduler = self._loop.scheduler
            for stream in [*scheduler.waiting, *scheduler.prefilling, *scheduler.running]:
                self._loop.cancel(stream)

    @contextmanager
    def fused(self, on: bool) -> Iterator[RecordedFrames]:
        """Frames with the option ``fused`` on or off, recorded when they are first run unless it is so anyway."""
        stacks = self.steps.backbone_stack.stack, self.steps.speech_stack.stack
        frames = self.frames() if on == self.options.fused else RecordedFrames(self.executor, self.steps)
        for stack in stacks:
            stack._fused = on
        try:
            yield frames
        finally:
            for stack in stacks:
                stack._fused = self.options.fused

    def stream(self, key: int, prompt: int, tokens: int, greedy: bool = False) -> Stream:
        """A speaking stream that nothing but its length ends."""
        model = self.sizes.model
        generator = np.random.default_rng(key)
        ids = generator.integers(0, model.backbone.output_size - 8, prompt)
        answer = Answer(
            replace(model.text_ids, stop=()),
            model.speech_ids,
            AnswerParams(max_tokens=tokens, sampling=SamplingParams(seed=key, greedy=greedy)),
        )
        empty = np.zeros((0, model.backbone.hidden_size), np.float32)
        return Stream(key, Prompt(ids, empty, np.zeros(0, np.int64)), answer)

    def stage(self, count: int) -> list[int]:
        """Puts streams into the first slots by hand, each with ``context`` cached positions of whatever lies there."""
        state, length = self.steps.state, self.sizes.context
        for stack, group in ((self.steps.backbone_stack, 1), (self.steps.speech_stack, self._group)):
            cache = KvCache(stack.stack.shape)
            for slot in range(count):
                cache.allocate(slot, (length + 8) * group)
            stack.tables[:count] = torch.from_numpy(cache.offsets[:count]).to(stack.tables.device)
        for slot in range(count):
            stream = self.stream(slot, length, 1)
            stream.slot = slot
            state.admit(stream)
            state.speaking[slot] = True
        return list(range(count))

    @property
    def _group(self) -> int:
        return self.sizes.model.speech_ids.group_size
