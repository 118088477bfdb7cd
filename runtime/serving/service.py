"""The public model: requests in, the frame loop thread, sound, cancellation, faults.

Two threads: the frame loop's, and an asyncio thread that does everything else. There each request is one task,
``ChatService.serve``, from the moment that the door, in Triton's thread, hands it over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from client.protocol.requests import Priority
from runtime.errors import ServeError
from runtime.families.base import Family
from runtime.frames.loop import FrameLoop, StreamFrame
from runtime.heap import HeapTrim
from runtime.logs import log_fault
from runtime.options import Options
from runtime.run_folder import RUN_FOLDER, Liveness, ModelRunFolder
from runtime.scheduling.stream import Stream
from runtime.serving.admission import Ticket
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.door import Door
from runtime.serving.loop_thread import LoopThread
from runtime.serving.metrics import Metrics
from runtime.serving.prepare import Preparation, Prepared
from runtime.serving.request import Request
from runtime.serving.response import Event, Response, response_fault
from runtime.serving.shutdown import Shutdown
from runtime.serving.sound import Sound, stream_ids
from runtime.serving.sound_queue import SoundQueue
from runtime.serving.stage_guard import GuardedStages
from runtime.serving.stages import Stages
from runtime.token2wav.layout import Sizes

logger = logging.getLogger(__name__)


class ChatService:
    """All live requests of one process.

    Args:
        options: of the rendered folder.
        family: of the checkpoint.
        loop: the frame loop; this service's thread owns it after ``start``.
        stages: encoder and token2wav.
        sound: rates and voices of token2wav.
        die: ends the process when the frame loop is lost (replaced by tests).
    """

    def __init__(
        self,
        options: Options,
        family: Family,
        loop: FrameLoop,
        stages: Stages,
        sound: Sizes,
        die: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        serving, features = options.serving, family.features
        self.family, self._poll_s = family, serving.cancel_poll_s
        self._sample_rate, self._scheduler = sound.sample_rate, loop.scheduler
        self._run_folder = ModelRunFolder(options.path(RUN_FOLDER))
        self._liveness = Liveness(serving.heartbeat_s)
        self.metrics = Metrics()
        self.thread = AsyncioThread("service", lambda error: self.shutdown.thread_lost(error))
        positions, seconds = options.engine.max_positions, float(features.seconds)
        limits, folder = options.limits.for_model(positions, family.position_hz, seconds), self._run_folder
        self.door = Door(options, limits, family, self._scheduler, folder, self.metrics, self.hand_over, self.send_away)
        self._admission = self.door.admission
        self.requests: dict[Ticket, Request] = {}  # from the hand-over until nothing of it is held
        self._events: dict[Stream, asyncio.Queue[Event]] = {}
        patience_s = serving.stage_timeout_s
        self.shutdown = Shutdown(self.thread, self.door, self.requests, die, patience_s)
        lost, beat = self.shutdown.loop_lost, folder.heartbeat
        self.loop_thread = LoopThread(
            loop, self.deliver, lost, beat, serving.heartbeat_s, self.metrics.step, self._liveness.alive
        )
        guarded = GuardedStages(stages, patience_s, self.shutdown.stage_lost)
        self.preparation = Preparation(options, limits, family, self._scheduler, guarded, sound)
        self.sounds = SoundQueue(guarded, options.token2wav, self.metrics)
        self._sound_ids = stream_ids()
        self._observe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Starts both threads."""
        self.loop_thread.start()
        self.thread.start()
        self.thread.keep(self._watch())

    def stop(self) -> None:
        """Ends both threads; live requests get an error."""
        self.loop_thread.stop()
        self.thread.run(self.shutdown.stop()).result()
        self.thread.stop()

    def observe(self, observer: Callable[[], None]) -> None:
        """Has ``observer`` called in the asyncio thread at every poll."""
        self._observe = observer

    @property
    def live(self) -> int:
        """Requests without a last response."""
        return self._admission.live + len(self.door.unsent)

    def gauges(self) -> dict[str, float]:
        """Numbers that show what is held now."""
        free, used = self._scheduler.free_blocks, self._scheduler.used_blocks
        names = [cache.name for cache in self.family.caches]
        waiting = {f"queue_length_{p.name.lower()}": self._admission.waiting(p) for p in Priority}
        return {
            "live_requests": self.live,
            "counted_requests": self._admission.counted,
            "live_streams": self._scheduler.live,
            "queue_length": sum(waiting.values()),
            **waiting,
            **{f"kv_free_{name}": blocks for name, blocks in zip(names, free, strict=True)},
            **{f"kv_used_{name}": blocks for name, blocks in zip(names, used, strict=True)},
            "prefix_hits": self._scheduler.prefix_hits,
            "frames": self.metrics.frames,
            "frame_seconds": self.metrics.frame_seconds,
        }

    # ---- asyncio thread ----

    async def serve(self, request: Request) -> None:
        """One request from the hand-over to its last response, which is sent when nothing of it is held any more."""
        response, last, error = None, {}, None
        request.task = asyncio.current_task()
        try:
            self.door.check_open()
            request.ticket.check()
            prepared = await self.preparation.prepare(request)
            request.arrays = {}
            request.timings.mark("encoded")
            if request.sender.is_cancelled():
                raise asyncio.CancelledError
            response = self._begin(request, prepared)
            last = await response.run()
        except (Exception, asyncio.CancelledError) as problem:
            error = request.why or problem
        finally:
            self._leave(request, response, error)
        if error is None:
            try:
                request.sender.send(last, final=True)
            except Exception as problem:
                request.sender.fail(response_fault(problem))
        elif isinstance(error, asyncio.CancelledError):  # its client is gone
            request.sender.close()
        else:
            request.sender.fail(error)

    def _begin(self, request: Request, prepared: Prepared) -> Response:
        """Hands the stream to the frame loop."""
        stream = prepared.stream
        self.metrics.accepted(stream.params.mode)
        response = Response(request, stream, self.family.tokenizer.stream(), self.sounds, self.metrics)
        if stream.params.speaks and "audio" in request.outputs:
            put = response.events.put_nowait
            response.sound = Sound(self._sound_ids, prepared.voice, prepared.hops, self._sample_rate, put, put)
        self._events[stream] = response.events
        stream.on_slot = self._admission.follow(request.ticket)
        self.loop_thread.add(stream)
        return response

    def _leave(self, request: Request, response: Response | None, error: BaseException | None) -> None:
        """Frees all that a request holds and counts how it ended."""
        self._count_end(request, response, error)
        self._admission.leave(request.ticket)
        del self.requests[request.ticket]
        if response is not None:
            del self._events[response.stream]
            self.loop_thread.cancel(response.stream)
            if response.sound is not None:
                response.sound.cancel()
                self.sounds.offer(response.sound)
        self._observe()  # the numbers of an answer are there before its last response

    def _count_end(self, request: Request, response: Response | None, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError):
            self.metrics.cancelled()
        elif error is not None and (response is None or error is request.ticket.refusal):
            self.metrics.rejected(error)
            if not isinstance(error, ServeError):
                log_fault(logger, "a request failed", error)
        elif response is not None:
            self.metrics.ended("error" if error else response.finish_reason)

    def _on_frames(self, frames: list[StreamFrame]) -> None:
        self.metrics.frames += 1
        self.shutdown.judge(frames)
        for item in frames:
            if (events := self._events.get(item.stream)) is not None:  # else it has ended since
                events.put_nowait(item.frame)

    async def _watch(self) -> None:
        """Polls cancellation and deadlines of all requests together and keeps the supervisor's count."""
        heap = HeapTrim()
        while True:
            self._liveness.touch()
            for request in list(self.requests.values()):
                if request.sender.is_cancelled():
                    request.end()
            for ticket in self._admission.overdue():
                self._end_refused(ticket)
            if self._run_folder.overdue:
                await self.shutdown.out_of_time()
            if self.door.unsent.retry():
                self.shutdown.response_stuck()
            self._observe()
            self._run_folder.show(self.live)
            heap.tick()
            await asyncio.sleep(self._poll_s)

    def _end_refused(self, ticket: Ticket) -> None:
        if (request := self.requests.get(ticket)) is not None:
            request.end(ticket.refusal)

    # ---- Triton's thread ----

    def hand_over(self, request: Request) -> None:
        self.requests[request.ticket] = request
        self.thread.loop.call_soon_threadsafe(lambda: self.thread.loop.create_task(self.serve(request)))

    def send_away(self, ticket: Ticket) -> None:
        self.thread.loop.call_soon_threadsafe(self._end_refused, ticket)

    # ---- frame loop thread ----

    def deliver(self, frames: list[StreamFrame]) -> None:
        """Hands the frames of a step to the requests that they belong to."""
        self.thread.loop.call_soon_threadsafe(self._on_frames, frames)
