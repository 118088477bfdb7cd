"""The public model's life: requests in, sessions, the frame loop thread, sound, cancellation, faults.

Two threads: the frame loop's, and an asyncio thread that does everything else. Requests come through the
door, in Triton's thread.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable

from client.protocol.requests import Priority
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.frames.loop import FrameLoop, StreamFrame
from runtime.frontend.mel import position_hz
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.heap import HeapTrim
from runtime.options import Options
from runtime.run_folder import RUN_FOLDER, Liveness, ModelRunFolder
from runtime.scheduling.stream import Stream
from runtime.serving.admission import Ticket
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.door import Door, Incoming
from runtime.serving.loop_thread import LoopThread
from runtime.serving.metrics import Metrics
from runtime.serving.prepare import Intake, Prepared
from runtime.serving.response import CANCELLED, Session
from runtime.serving.shutdown import Endings
from runtime.serving.sound import Dispatcher, Sound, stream_ids
from runtime.serving.stage_guard import GuardedStages
from runtime.serving.stages import Stages
from runtime.token2wav.layout import Sizes


class ChatService:
    """All live requests of one process.

    Args:
        options: of the rendered folder.
        config: sizes and ids of the checkpoint.
        loop: the frame loop; this service's thread owns it after ``start``.
        stages: encoder and token2wav.
        sound: rates and voices of token2wav.
        die: ends the process when the frame loop is lost (replaced by tests).
    """

    def __init__(
        self,
        options: Options,
        config: ModelConfig,
        loop: FrameLoop,
        stages: Stages,
        sound: Sizes,
        die: Callable[[], None] = lambda: os._exit(1),
    ) -> None:
        self._config, self._poll_s = config, options.serving.cancel_poll_s
        self._sample_rate, self._scheduler = sound.sample_rate, loop.scheduler
        self._tokenizer = ChatTokenizer(config.directory)
        self._run_folder, self._liveness = (
            ModelRunFolder(options.path(RUN_FOLDER)),
            Liveness(options.serving.heartbeat_s),
        )
        self.metrics = Metrics()
        self._thread = AsyncioThread("service", lambda error: self._endings.thread_lost(error))
        self._aio = self._thread.loop
        limits = options.limits.for_model(
            options.engine.max_positions, position_hz(config.speech_ids.group_size), float(config.features.seconds)
        )
        rate = config.features.sample_rate
        self.door = Door(
            options, limits, rate, self._scheduler, self._run_folder, self.metrics, self._submit, self._sent_away
        )
        self._admission = self.door.admission
        self._sessions: dict[Stream, Session] = {}
        self._tickets: dict[Stream, Ticket] = {}
        self._tasks: dict[asyncio.Task[None], Incoming] = {}  # of requests that are being prepared
        patience_s = options.serving.stage_timeout_s
        self._endings = Endings(self._thread, self.door, self._sessions, self._tasks, die, patience_s)
        self._loop_thread = LoopThread(
            loop,
            self._frames,
            self._endings.loop_lost,
            self._run_folder.heartbeat,
            options.serving.heartbeat_s,
            self.metrics.step,
            self._liveness.alive,
        )
        guarded = GuardedStages(stages, patience_s, self._endings.stage_lost)
        self._intake = Intake(options, limits, config, self._tokenizer, self._scheduler, guarded, sound)
        self._dispatcher = Dispatcher(guarded, options.token2wav, self.metrics)
        self._sound_ids = stream_ids()
        self._observe: Callable[[], None] = lambda: None
        self.frame_seconds = 0.0  # spent on frames in the asyncio thread: decoding text, building and sending responses
        self.frames = 0

    def start(self) -> None:
        """Starts both threads."""
        self._loop_thread.start()
        self._thread.start()
        self._thread.keep(self._watch())

    def stop(self) -> None:
        """Ends both threads; live requests get an error."""
        self._loop_thread.stop()
        self._thread.run(self._endings.stop()).result()
        self._thread.stop()

    def observe(self, observer: Callable[[], None]) -> None:
        """Has ``observer`` called in the asyncio thread at every poll."""
        self._observe = observer

    @property
    def live(self) -> int:
        """Requests without a last response."""
        return self._admission.live + len(self.door.owed)

    def gauges(self) -> dict[str, float]:
        """Numbers that show what is held now."""
        free, used = self._scheduler.free_blocks, self._scheduler.used_blocks
        waiting = {f"queue_length_{p.name.lower()}": self._admission.waiting(p) for p in Priority}
        return {
            "live_requests": self.live,
            "counted_requests": self.door.keys.live,
            "live_streams": self._scheduler.live,
            "queue_length": sum(waiting.values()),
            **waiting,
            "kv_free_backbone": free[0],
            "kv_free_speech": free[1],
            "kv_used_backbone": used[0],
            "kv_used_speech": used[1],
            "prefix_hits": self._scheduler.prefix_hits,
            "frames": self.frames,
            "frame_seconds": self.frame_seconds,
        }

    # ---- asyncio thread ----

    def _accept(self, incoming: Incoming) -> None:
        self._tasks[task := self._aio.create_task(self._answer(incoming))] = incoming
        task.add_done_callback(self._prepared)

    def _prepared(self, task: asyncio.Task[None]) -> None:
        incoming = self._tasks.pop(task)
        if task.cancelled():  # before its first step: ``_answer`` never ran
            self._drop(incoming, self._endings.reason(asyncio.CancelledError()))

    async def _answer(self, incoming: Incoming) -> None:
        try:
            self.door.check_open()
            prepared = await self._intake.prepare(incoming)
            incoming.timings.mark("encoded")
            if incoming.reply.is_cancelled():
                raise asyncio.CancelledError
            self._begin(incoming, prepared)
        except (Exception, asyncio.CancelledError) as error:  # the second when its client is gone, or all requests end
            self._drop(incoming, self._endings.reason(error))

    def _drop(self, incoming: Incoming, why: BaseException) -> None:
        """Ends a request that was not begun: with an error, or because its client is gone."""
        if isinstance(why, asyncio.CancelledError):
            self.metrics.cancelled()
            incoming.reply.close()
        else:
            self.door.refuse(incoming.reply, why)
        self._admission.leave(incoming.ticket)

    def _begin(self, incoming: Incoming, prepared: Prepared) -> None:
        stream, ticket = prepared.stream, incoming.ticket
        self.metrics.accepted(stream.params.mode)
        text = self._tokenizer.stream()
        outputs = incoming.outputs
        session = Session(incoming.reply, outputs, stream, text, incoming.timings, self._forget)
        if stream.params.speaks and "audio" in outputs:
            session.sound = Sound(
                self._sound_ids, prepared.voice, prepared.hops, self._sample_rate, session.on_audio, session.fail
            )
        self._sessions[stream], self._tickets[stream] = session, ticket
        ticket.end = session.fail
        stream.on_slot = self._admission.follow(ticket)
        self._loop_thread.add(stream)

    def _send_away(self, ticket: Ticket) -> None:
        """Ends a request that has its refusal; one that was not begun finds the refusal itself."""
        if ticket.refusal is not None and ticket.end is not None:
            ticket.end(ticket.refusal)

    def _on_frames(self, frames: list[StreamFrame]) -> None:
        began = time.perf_counter()
        self.frames += 1
        self._endings.judge(frames)
        for item in frames:
            session = self._sessions.get(item.stream)
            if session is None:
                continue  # cancelled since
            session.on_frame(item.frame)
            if session.sound is not None:
                self._dispatcher.offer(session.sound)
        self.frame_seconds += time.perf_counter() - began

    def _forget(self, session: Session) -> None:
        """The session sent its last response, or its client is gone: free what it holds."""
        ticket = self._tickets.pop(session.stream)
        if ticket.refusal is not None:
            self.metrics.rejected(ticket.refusal)
        elif session.ending == CANCELLED:
            self.metrics.cancelled()
        else:
            self.metrics.ended(session.ending)
        self._admission.leave(ticket)
        del self._sessions[session.stream]
        self._loop_thread.cancel(session.stream)
        if session.sound is not None:
            session.sound.cancel()
            self._dispatcher.offer(session.sound)
        self._observe()  # the numbers of an answer are there before its last response

    async def _watch(self) -> None:
        """Polls cancellation and deadlines of all requests together and keeps the supervisor's count."""
        heap = HeapTrim()
        while True:
            self._liveness.touch()
            for session in list(self._sessions.values()):
                if session.reply.is_cancelled():
                    session.cancel()
            for task, incoming in list(self._tasks.items()):
                if not task.done() and incoming.reply.is_cancelled():  # never asked after its end
                    task.cancel()
            for ticket in self._admission.overdue():
                self._send_away(ticket)
            if self._run_folder.overdue:
                await self._endings.out_of_time()
            if self.door.owed.retry():
                self._endings.answer_stuck()
            self._observe()
            self._run_folder.show(self.live)
            heap.tick()
            await asyncio.sleep(self._poll_s)

    # ---- Triton's thread ----

    def _submit(self, incoming: Incoming) -> None:
        self._aio.call_soon_threadsafe(self._accept, incoming)

    def _sent_away(self, ticket: Ticket) -> None:
        self._aio.call_soon_threadsafe(self._send_away, ticket)

    # ---- frame loop thread ----

    def _frames(self, frames: list[StreamFrame]) -> None:
        self._aio.call_soon_threadsafe(self._on_frames, frames)
