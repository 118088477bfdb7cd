"""Both stacks over one plan of the scheduler, queued on the device and not waited for."""

from __future__ import annotations

import torch

from runtime.frames.admission import Admission
from runtime.frames.executor import Executor, Ticket
from runtime.frames.prefill import Prefill
from runtime.frames.recordings import RecordedFrames
from runtime.frames.steps import FrameSteps, StackTables
from runtime.kv_cache import KvCache
from runtime.models.speech_head import Projections
from runtime.scheduler import Plan
from runtime.stream import Stream


class FrameModel:
    """What ``OverlapLoop`` runs. Caches are those that the scheduler allocates from."""

    def __init__(
        self,
        executor: Executor,
        steps: FrameSteps,
        projections: Projections,
        caches: tuple[KvCache, KvCache],
    ) -> None:
        self._executor, self.steps, self._caches = executor, steps, caches
        self._admission = Admission()
        self._frames, self._prefill = RecordedFrames(executor, steps), Prefill(steps, projections)

    @torch.inference_mode()
    def prepare(self) -> None:
        """Records all batch sizes, so that no request waits for it."""
        self._frames.prepare()

    @torch.inference_mode()
    def queue(self, plan: Plan) -> Ticket | None:
        """See ``QueuedModel.queue``."""
        for stream in self._admission.new(plan):
            self._admit(stream)
        self._prefill.run(plan.contexts)
        deciding = plan.deciding
        if not deciding:
            return None
        speaking = [s.slot for s in deciding if s.params.speaks]
        return self._executor.fetch(self._frames.run([s.slot for s in deciding], speaking))

    def _admit(self, stream: Stream) -> None:
        self.steps.state.admit(stream)
        backbone, speech = self._caches
        self._place(self.steps.backbone_stack, backbone, stream.slot)
        if stream.params.speaks:
            self._place(self.steps.speech_stack, speech, stream.slot)

    def _place(self, stack: StackTables, cache: KvCache, slot: int) -> None:
        self._executor.upload(stack.tables[slot], cache.offsets[slot].copy())
