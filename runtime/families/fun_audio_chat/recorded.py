"""Both stacks of kernels over the plans of the scheduler, every frame as recorded work."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.engines.kv_cache import KvCache
from runtime.families.fun_audio_chat.prefill import Prefill
from runtime.families.fun_audio_chat.projections import Projections
from runtime.families.fun_audio_chat.steps import FrameSteps
from runtime.frames.batches import Batch
from runtime.graphs.executor import Executor, Fetch
from runtime.scheduling.scheduler import Plan
from runtime.scheduling.stream import Stream


class RecordedFrames:
    """All three works of a frame, and the results of the last one."""

    def __init__(self, executor: Executor, steps: FrameSteps) -> None:
        state, decide = steps.state, steps.decisions.accept
        most, padding = state.sizes.slots, state.padding
        self._results = results = torch.zeros(
            most, 1 + state.sizes.speech_ids.group_size, dtype=torch.int64, device=executor.device
        )

        def accept(slots: torch.Tensor) -> None:  # no method: a cycle would hold all recordings until it is collected
            decide(slots, results[: len(slots)])

        self._backbone = Batch(executor, steps.backbone, most, padding)
        self._speech = Batch(executor, steps.speech, most, padding)
        self._accept = Batch(executor, accept, most, padding)
        self._executor = executor

    def prepare(self) -> None:
        """Records everything now instead of when it is first needed, and takes the memory of the largest result."""
        for batch in (self._backbone, self._speech, self._accept):
            batch.prepare()
        self._executor.fetch(self._results).wait()

    def run(self, deciding: Sequence[int], speaking: Sequence[int]) -> torch.Tensor:
        """Queues one frame of some slots.

        Args:
            deciding: slots that make a frame. speaking: those of them that have a speech head.

        Returns:
            [deciding, 1 + group] int64, see ``Decisions.accept``; the next frame overwrites it.
        """
        self._backbone.run(deciding)
        if speaking:
            self._speech.run(speaking)
        self._accept.run(deciding)
        return self._results[: len(deciding)]


class RecordedModel:
    """``QueuedModel`` over recorded steps. Caches are those that the scheduler allocates from."""

    def __init__(
        self,
        executor: Executor,
        steps: FrameSteps,
        projections: Projections,
        caches: tuple[KvCache, KvCache],
    ) -> None:
        self._executor, self.steps, self._caches = executor, steps, caches
        self.state = steps.state
        self._stacks = steps.backbone_stack, steps.speech_stack
        self._frames, self._prefill = RecordedFrames(executor, steps), Prefill(executor, steps, projections)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Records all batch sizes and short prompts, so that no request waits for it."""
        self._frames.prepare()
        self._prefill.prepare()

    @torch.inference_mode()
    def queue(self, plan: Plan) -> Fetch | None:
        for copy in plan.copies:
            self._stacks[copy.cache].stack.copy_block(copy.source, copy.target)
        for chunk in plan.contexts:
            if chunk.first:
                self._admit(chunk.stream)
        self._prefill.run(plan.contexts)
        deciding = plan.deciding
        if not deciding:
            return None
        speaking = [s.slot for s in deciding if s.params.speaks]
        return self._executor.fetch(self._frames.run([s.slot for s in deciding], speaking))

    @torch.inference_mode()
    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        for stack, which in zip(self._stacks, blocks, strict=False):
            for block in which:  # a list as an index would be copied over, and waited for
                stack.stack.memory[block].zero_()

    def _admit(self, stream: Stream) -> None:
        self.state.admit(stream)
        for stack, cache in zip(self._stacks[: 1 + stream.params.speaks], self._caches, strict=False):
            self._executor.upload(stack.tables[stream.slot], cache.offsets[stream.slot].copy())
