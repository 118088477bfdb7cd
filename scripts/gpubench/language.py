"""The language side with random weights: steps, frames, prefill, and the same steps done naively."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch

from gpubench.measure import Clock, Measured
from gpubench.naive import NaiveFrames
from gpubench.sizes import BenchSizes
from kernels.ops import Ops
from runtime.answer import Answer
from runtime.checkpoint.layout import all_shapes
from runtime.engines.options import EngineOptions
from runtime.frames.build import assemble_overlap, build_steps, matrix_for
from runtime.frames.executor import Executor
from runtime.frames.loop import OverlapLoop
from runtime.frames.model import FrameModel
from runtime.frames.recordings import RecordedFrames
from runtime.frames.steps import StackTables
from runtime.kv_cache import KvCache
from runtime.params import AnswerParams, SamplingParams
from runtime.stream import Prompt, Stream

NEVER = 1e9  # seconds: no stream stands back
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
        self._loop: OverlapLoop[FrameModel] | None = None
        self.weights = {name: t for name, t in weights.items() if ".layers." not in name}

    def loop(self) -> OverlapLoop[FrameModel]:
        """The frame loop, always the same and with everything recorded: no figure holds a recording."""
        if self._loop is None:
            self._loop = assemble_overlap(self.sizes.model, self.options, self.steps, self.weights, self.executor)
            self._loop.prepare()
        return self._loop

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

    def _kv_bytes(self, stack: StackTables, rows: int, positions: float) -> int:
        shape = stack.stack.shape
        line = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * stack.stack.memory.element_size()
        return round(rows * positions) * line

    def backbone_bytes(self, rows: int, context: float) -> int:
        """What a backbone step reads at least: its matrices, the head, the cached positions of every row."""
        w, stack = self.steps.weights, self.steps.backbone_stack
        return _stack_bytes(stack) + _bytes(w.text_head, w.feedback) + self._kv_bytes(stack, rows, context)

    def speech_bytes(self, rows: int, context: float) -> int:
        """What a group reads at least: five times the speech head and its projections, the spread once."""
        w, stack, group = self.steps.weights, self.steps.speech_stack, self._group
        cached = self._kv_bytes(stack, rows, group * context)
        return group * (_stack_bytes(stack) + _bytes(w.narrow, *w.speech_head) + cached) + _bytes(w.spread)

    @torch.inference_mode()
    def step_rows(self, clock: Clock, naive: int) -> list[Measured]:
        """Backbone step, group, for every batch size; the baseline up to ``naive`` streams."""
        rows, frames, context = [], RecordedFrames(self.executor, self.steps), self.sizes.context
        for count in self.sizes.streams:
            slots = self.stage(count)
            baseline = NaiveFrames(self.steps, self.sizes, count) if count <= naive else None
            parts = (
                (
                    "backbone step",
                    lambda s=slots: frames._backbone.run(s),
                    self.backbone_bytes(count, context),
                    "backbone",
                ),
                ("speech group", lambda s=slots: frames._speech.run(s), self.speech_bytes(count, context), "speech"),
            )
            for name, work, floor, part in parts:
                slow = None if baseline is None else clock.ms(getattr(baseline, part))
                rows.append(Measured(f"{name}, {count} streams", clock.ms(work, 4), floor, slow))
        return rows

    @torch.inference_mode()
    def frame_rows(self, clock: Clock, naive: int) -> list[Measured]:
        """Whole frames through the loop: planning, queueing, ids back to the host, routing."""
        rows = []
        for count in self.sizes.streams:
            loop = self.loop()
            for key in range(count):
                loop.add(self.stream(key, self.sizes.question, self.sizes.context))
            while len(loop.scheduler.running) < count:
                loop.step()
            slow = None
            if count <= naive:
                baseline = NaiveFrames(self.steps, self.sizes, count)
                slow = clock.ms(baseline.frame)
            began = _mean_position(loop)
            taken = clock.ms(loop.step, 4)
            context = (began + _mean_position(loop)) / 2  # answers grow as they are timed
            floor = self.backbone_bytes(count, context) + self.speech_bytes(count, context)
            note = f"{context:.0f} positions on the average"
            rows.append(Measured(f"frame, {count} streams", taken, floor, slow, note))
            for stream in list(loop.scheduler.running):
                loop.cancel(stream)
        return rows

    @torch.inference_mode()
    def prefill_row(self, clock: Clock) -> Measured:
        """A chunk of a prompt through both stacks; each run is a new stream."""
        loop, keys = self.loop(), iter(range(1 << 20))

        def work() -> None:
            stream = self.stream(next(keys), self.sizes.prefill + 1, 1)
            loop.add(stream)
            loop.step()
            loop.cancel(stream)

        floor = _stack_bytes(self.steps.backbone_stack) + _stack_bytes(self.steps.speech_stack)
        return Measured(f"prefill, {self.sizes.prefill} positions", clock.ms(work), floor, note="bound by arithmetic")


def _mean_position(loop: OverlapLoop[FrameModel]) -> float:
    return float(np.mean([stream.position for stream in loop.scheduler.running]))


def _bytes(*matrices: object) -> int:
    return sum(int(getattr(matrix, "nbytes", 0)) for matrix in matrices)


def _stack_bytes(stack: StackTables) -> int:
    return sum(_bytes(layer.qkv, layer.out, layer.gate_up, layer.down) for layer in stack.stack.layers)


def same_frames(bench: LanguageBench, eager: Executor, count: int, frames: int) -> tuple[bool, str]:
    """Greedy ids of recorded frames against the same work run eagerly."""
    found = []
    for executor in (bench.executor, eager):
        loop = assemble_overlap(bench.sizes.model, bench.options, bench.steps, bench.weights, executor)
        for key in range(count):
            loop.add(bench.stream(key, bench.sizes.question, frames, greedy=True))
        ids: dict[int, list[tuple[int, tuple[int, ...]]]] = {}
        while loop.scheduler.live or loop.scheduler.waiting:
            for item in loop.step():
                ids.setdefault(item.stream.key, []).append((item.frame.text_id, item.frame.codes))
        found.append(ids)
    return found[0] == found[1], f"{count} streams, {frames} frames, greedy ids"
