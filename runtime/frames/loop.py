"""The frame loop: plan a step, queue it on the model, route what it gave. All live streams advance together.

With ``ahead`` the loop is one frame ahead of what it knows: frame t + 1 is planned and queued before the ids of
frame t are read, so a GPU never waits for the host. That is possible because the device chooses ids and feeds them
back itself. Only that a stream has ended is known one frame late: its last frame is followed by one that is thrown
away. Its cache has room for that, and it is written before anything of a stream that takes over its blocks, since
all work is queued in order. Without ``ahead`` every step is settled at once, as suits a CPU.

Not thread-safe: one thread owns it (``runtime.serving.loop_thread``).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.graphs.executor import Fetch
from runtime.scheduling.scheduler import Plan, Scheduler
from runtime.scheduling.stream import LOST_FRAME, Frame, Stream

NOT_FINITE = -1  # first id of a row whose scores hold no finite largest one: the engine failed for this stream


class QueuedModel(Protocol):
    """A model that runs one plan after another without being waited for."""

    def prepare(self) -> None:
        """Does now what would make the first requests wait."""

    def queue(self, plan: Plan) -> Fetch | None:
        """Queues a step.

        Returns:
            [deciding, ids] int64 as chosen for ``plan.deciding`` in order, on their way to the host; the first is
            ``NOT_FINITE`` where the model failed. None when no stream decides.
        """

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Queues the clearing of blocks of each cache, in the order of the caches."""


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame and the stream that it belongs to; ``LOST_FRAME`` when the model gave it nothing finite."""

    stream: Stream
    frame: Frame


@dataclass(frozen=True, slots=True)
class InFlight:
    """A step that runs: its deciding streams, in order, and their ids."""

    streams: list[Stream]
    ids: Fetch


class FrameLoop:
    """One step = one frame of every live stream.

    Args:
        ahead: whether a step returns the frames of the step before, see above.
    """

    def __init__(self, scheduler: Scheduler, model: QueuedModel, ahead: bool) -> None:
        self.scheduler, self.model, self._ahead = scheduler, model, ahead
        self._flying: InFlight | None = None

    def add(self, stream: Stream) -> None:
        """Queues a stream.

        Raises:
            InvalidRequest: it could not run even on an idle server.
        """
        self.scheduler.check_fits(stream)
        self.scheduler.add(stream)

    def cancel(self, stream: Stream) -> None:
        """Frees the stream's slot and blocks now; must be called between steps."""
        if stream in self.scheduler.prefilling:  # whether its prompt left finite numbers in the caches is not known yet
            self.model.scrub(self.scheduler.discard(stream))
        else:
            self.scheduler.remove(stream)

    def step(self) -> list[StreamFrame]:
        """Runs one step and returns what streams emitted; empty when there is nothing to do, or nothing yet."""
        now = time.monotonic()
        plan = self.scheduler.plan(now)
        before, self._flying = self._flying, None if plan is None else self._queue(plan, now)
        if not self._ahead:
            before, self._flying = self._flying, None
        return [] if before is None else self._settle(before)

    def _queue(self, plan: Plan, now: float) -> InFlight | None:
        ids = self.model.queue(plan)
        for chunk in plan.contexts:
            if chunk.last:
                chunk.stream.started = now
        return None if ids is None else InFlight(plan.deciding, ids)

    def _settle(self, flight: InFlight) -> list[StreamFrame]:
        """Routes the ids of a frame: the one host synchronisation of a step."""
        rows = flight.ids.wait().tolist()
        # A stream without a slot ended in the frame before, or was cancelled meanwhile.
        return [self._route(s, row) for s, row in zip(flight.streams, rows, strict=True) if s.slot >= 0]

    def _route(self, stream: Stream, ids: list[int]) -> StreamFrame:
        if ids[0] == NOT_FINITE:
            # Queued behind the frame that already runs for this stream, and before the blocks' next owner.
            self.model.scrub(self.scheduler.discard(stream))
            return StreamFrame(stream, LOST_FRAME)
        frame = stream.answer.accept(ids)
        if frame.finish:
            self.scheduler.remove(stream)
        return StreamFrame(stream, frame)
