"""The frame loop: admit, run both engines, choose ids, route. All live streams advance together.

Not thread-safe: one thread owns it (``runtime.serving.loop_thread``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.families.fun_audio_chat.answer import FAULT, Frame
from runtime.lockstep import Lockstep
from runtime.sampling import Sampler
from runtime.scheduling.scheduler import Scheduler
from runtime.scheduling.stream import Stream

LOST_FRAME = Frame(text_id=-1, codes=(), speech_ended=False, finish=FAULT)


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame and the stream that it belongs to; ``LOST_FRAME`` when an engine gave it nothing finite."""

    stream: Stream
    frame: Frame


class FrameLoop:
    """One step = one backbone position and one group of codes for every live stream."""

    def __init__(self, scheduler: Scheduler, model: Lockstep, sampler: Sampler) -> None:
        self.scheduler, self._model, self._sampler = scheduler, model, sampler

    def add(self, stream: Stream) -> None:
        """Queues a stream. Raises InvalidRequest when it can never fit."""
        self.scheduler.check_fits(stream)
        if not stream.params.sampling.text_greedy:
            stream.text_context.update(stream.prompt.ids.tolist())
        self.scheduler.add(stream)

    def cancel(self, stream: Stream) -> None:
        """Frees the stream's slot and blocks now; must be called between steps."""
        if stream in self.scheduler.prefilling:  # nobody has judged what its prompt left in the caches
            self._scrub(self.scheduler.discard(stream))
        else:
            self.scheduler.remove(stream)

    def step(self) -> list[StreamFrame]:
        """Runs one step and returns what each deciding stream emitted; empty when there is nothing to do."""
        now = time.monotonic()
        plan = self.scheduler.plan(now)
        if plan is None:
            return []
        rows = self._model.run_backbone(plan)
        # Speech before text: the order in which the reference consumes its random numbers.
        groups = self._model.run_speech(plan, rows, self._sampler)
        deciding = plan.deciding
        for chunk in plan.contexts:
            if chunk.last:
                chunk.stream.started = now
        text_ids = self._sampler.text(deciding, rows.logits).tolist() if deciding else []
        return [self._route(s, t, groups.get(s, ())) for s, t in zip(deciding, text_ids, strict=True)]

    def _scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        self._model.scrub(blocks)

    def _route(self, stream: Stream, text_id: int, codes: list[int] | tuple[()]) -> StreamFrame:
        if text_id < 0 or min(codes, default=0) < 0:
            self._scrub(self.scheduler.discard(stream))
            return StreamFrame(stream, LOST_FRAME)
        frame = stream.answer.accept(text_id, codes)
        if not stream.params.sampling.text_greedy:
            stream.text_context.add(frame.text_id)
        if frame.finish:
            self.scheduler.remove(stream)
        return StreamFrame(stream, frame)
