"""A frame loop that is one frame ahead of what it knows: the device never waits for the host.

Frame t + 1 is planned and queued before the ids of frame t are read. That is possible because the device
decides everything itself (``SlotState``). Only that a stream has ended is known one frame late: its last
frame is followed by one that nobody reads. Its cache has room for that, and it is written before anything
of a stream that takes over its blocks, since all work is queued in order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from runtime.families.fun_audio_chat.state import check_stream
from runtime.frame_loop import FrameLoop, StreamFrame
from runtime.graphs.executor import Ticket
from runtime.scheduling.scheduler import Plan, Scheduler
from runtime.scheduling.stream import Stream


@dataclass(frozen=True, slots=True)
class InFlight:
    """A frame that runs: its streams, in order, and their ids."""

    streams: list[Stream]
    ids: Ticket


class QueuedModel(Protocol):
    """Both stacks over one plan."""

    def prepare(self) -> None:
        """Does now what would make the first requests wait."""

    def queue(self, plan: Plan) -> Ticket | None:
        """Queues a step.

        Returns:
            [deciding, 1 + group] ids of ``plan.deciding`` in order, on their way; None when nobody decides.
        """

    def scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        """Queues the clearing of blocks of the backbone's cache and, where given, of the speech head's."""


Model = TypeVar("Model", bound=QueuedModel)


class OverlapLoop(FrameLoop, Generic[Model]):
    """``FrameLoop`` whose steps return the frames of the step before."""

    def __init__(self, scheduler: Scheduler, model: Model) -> None:
        self.scheduler, self.model = scheduler, model
        self._flying: InFlight | None = None

    def prepare(self) -> None:
        """See ``QueuedModel.prepare``."""
        self.model.prepare()

    def add(self, stream: Stream) -> None:
        """See ``FrameLoop.add``."""
        check_stream(stream)
        super().add(stream)

    def step(self) -> list[StreamFrame]:
        """Queues the next frame, then returns what the one before emitted; empty when there was none."""
        now = time.monotonic()
        plan = self.scheduler.plan(now)
        before, self._flying = self._flying, None
        if plan is not None:
            ids = self.model.queue(plan)
            for chunk in plan.contexts:
                if chunk.last:
                    chunk.stream.started = now
            if ids is not None:
                self._flying = InFlight(plan.deciding, ids)
        return [] if before is None else self._settle(before)

    def _scrub(self, blocks: Sequence[Sequence[int]]) -> None:
        # Queued behind the frame that already runs for this stream, and before anything of the blocks' next owner.
        self.model.scrub(blocks)

    def _settle(self, flight: InFlight) -> list[StreamFrame]:
        """Routes the ids of a frame, the one host synchronisation of a step."""
        rows = flight.ids.wait().tolist()
        # A stream without a slot ended in the frame before, or was cancelled meanwhile.
        live = [(s, row) for s, row in zip(flight.streams, rows, strict=True) if s.slot >= 0]
        return [self._route(s, row[0], row[1:] if s.params.speaks else ()) for s, row in live]
