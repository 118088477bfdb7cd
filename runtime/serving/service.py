"""The public model's life: requests in, sessions, the frame loop thread, sound, cancellation, faults.

Two threads: the frame loop's, and an asyncio thread that does everything else. ``submit`` is called
from Triton's ``execute`` and returns at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from runtime.answer import Answer
from runtime.checkpoint.config import ModelConfig
from runtime.errors import Draining, EngineFault, NotFound, Overloaded, ServeError
from runtime.faults import kind, log_fault
from runtime.frame_loop import FrameLoop, StreamFrame
from runtime.frontend.audio import split_clips, to_model_rate
from runtime.frontend.prompt import PromptBuilder
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.options import Options
from runtime.server.control import RUN_FOLDER
from runtime.serving.asyncio_thread import AsyncioThread
from runtime.serving.encoding import EncodeQueue
from runtime.serving.guarded import GuardedStages
from runtime.serving.loop_thread import LoopThread
from runtime.serving.metrics import Metrics
from runtime.serving.orders import Orders, Pulse
from runtime.serving.owed import OwedReplies, SureReply
from runtime.serving.request import ChatRequest, parse_request
from runtime.serving.session import CANCELLED, Reply, Session, Timings
from runtime.serving.sound import Dispatcher, Sound
from runtime.serving.stages import Stages
from runtime.stream import Prompt, Stream
from runtime.token2wav.hops import HopPolicy
from runtime.token2wav.layout import Sizes

logger = logging.getLogger(__name__)

MakeSound = Callable[[Callable[[np.ndarray], None], Callable[[ServeError], None]], Sound]
DEATH_DELAY_S = 0.5  # for the last error responses to leave the process
FAULT_REMEDY = "the server restarts: send the request again"


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request as it came: tensors, parameters, wanted outputs, where the answer goes."""

    arrays: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any]
    outputs: frozenset[str]
    reply: Reply


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
        self._options, self._config = options, config
        self._voices, self._sample_rate, self._die = sound.voices, sound.sample_rate, die
        self._tokenizer = ChatTokenizer(config.directory)
        self._prompts = PromptBuilder(config, self._tokenizer)
        self._scheduler = loop.scheduler
        serving = options.serving
        self._orders = Orders(options.path(RUN_FOLDER))
        self._pulse = Pulse(serving.heartbeat_s)
        self.metrics = Metrics()
        self._loop_thread = LoopThread(
            loop,
            self._frames,
            self._fault,
            self._orders.heartbeat,
            serving.heartbeat_s,
            self.metrics.step,
            self._pulse.beats,
        )
        self._thread = AsyncioThread("service", self._died)
        self._aio = self._thread.loop
        stages = GuardedStages(stages, serving.stage_timeout_s, self._hung)
        self._encoder = EncodeQueue(stages, int(serving.encode_s * config.features.sample_rate), serving.gather_s)
        self._dispatcher = Dispatcher(stages, options.token2wav, self.metrics)
        # Under full attention a frame depends on its whole call, so there chunks are never joined.
        block = 0 if options.token2wav.full_attention else sound.block_tokens
        self._policy = HopPolicy(options.token2wav.hops, sound.lookahead, block)
        self._sessions: dict[Stream, Session] = {}
        self._incoming = 0
        self._keys, self._sound_ids = itertools.count(), _stream_ids()
        self._tasks: set[asyncio.Task[None]] = set()
        self._observe: Callable[[], None] = lambda: None
        self._owed = OwedReplies()
        self._ending: ServeError | None = None  # nothing is answered any more, but with this
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
        self._thread.run(self._end_all(Draining("server", "is stopping", "send the request again"))).result()
        self._thread.stop()

    def submit(self, incoming: Incoming) -> None:
        """Takes a request; its answer goes to its reply. Thread-safe, returns at once."""
        self._aio.call_soon_threadsafe(self._accept, incoming, Timings(on_mark=self.metrics.moment))

    def observe(self, observer: Callable[[], None]) -> None:
        """Has ``observer`` called in the asyncio thread at every poll."""
        self._observe = observer

    @property
    def live(self) -> int:
        """Requests without a last response."""
        return self._incoming + len(self._sessions) + len(self._owed)

    def gauges(self) -> dict[str, float]:
        """Numbers that show what is held now."""
        free, used = self._scheduler.free_blocks, self._scheduler.used_blocks
        return {
            "live_requests": self.live,
            "live_streams": self._scheduler.live,
            "queue_length": self._incoming + len(self._scheduler.waiting),
            "kv_free_backbone": free[0],
            "kv_free_speech": free[1],
            "kv_used_backbone": used[0],
            "kv_used_speech": used[1],
            "frames": self.frames,
            "frame_seconds": self.frame_seconds,
        }

    # ---- asyncio thread ----

    def _accept(self, incoming: Incoming, timings: Timings) -> None:
        self._incoming += 1
        incoming = replace(incoming, reply=SureReply(incoming.reply, self._owed))
        task = self._aio.create_task(self._answer(incoming, timings))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, incoming: Incoming, timings: Timings) -> None:
        try:
            await self._prepare(incoming, timings)
        except (Exception, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError):  # by ``_end_all``
                error = self._ending or error
            elif not isinstance(error, ServeError):
                log_fault(logger, "a request failed", error)
            self.metrics.rejected(error)
            incoming.reply.fail(error)
        finally:
            self._incoming -= 1

    async def _prepare(self, incoming: Incoming, timings: Timings) -> None:
        """Checks the request, encodes its sound and hands it to the frame loop."""
        self._admit()
        clips = split_clips(incoming.arrays.get("audio"), incoming.arrays.get("audio_lengths"))
        request = parse_request(incoming.arrays, incoming.parameters, clips, self._config.features.sample_rate)
        voice = self._voice(request)
        clips = to_model_rate(list(request.clips), request.sample_rate, self._config.features)
        ids = self._prompts.build(request.messages, [len(clip) for clip in clips])
        positions = np.flatnonzero(ids == self._config.text_ids.audio)
        answer = Answer(self._config.text_ids, self._config.speech_ids, request.params)
        hidden = self._config.backbone.hidden_size
        stream = Stream(
            next(self._keys), Prompt(ids, np.zeros((len(positions), hidden), np.float32), positions), answer
        )
        self._scheduler.check_fits(stream)
        if len(positions):
            embeds = [part for part in await self._encoder.encode(clips) if len(part)]
            stream.prompt.audio_embeds[:] = np.concatenate(embeds)
        timings.mark("encoded")
        if incoming.reply.is_cancelled():
            self.metrics.cancelled()
            incoming.reply.close()
            return
        self.metrics.accepted(request.params.mode)
        policy = replace(self._policy, hops=request.hops or self._policy.hops)
        self._begin(incoming, stream, partial(Sound, self._sound_ids, voice, policy, self._sample_rate), timings)

    def _begin(self, incoming: Incoming, stream: Stream, sound: MakeSound, timings: Timings) -> None:
        session = Session(
            incoming.reply,
            incoming.outputs,
            stream,
            self._tokenizer.stream(),
            self._config.speech_ids,
            timings,
            self._forget,
        )
        if stream.params.speaks and "audio" in incoming.outputs:
            session.sound = sound(session.on_audio, session.fail)
        self._sessions[stream] = session
        self._loop_thread.add(stream)

    def _admit(self) -> None:
        if self._ending is not None:
            raise self._ending
        if self._orders.draining:
            raise Draining("server", "is stopping", "send the request to another server or retry in a minute")
        bound = self._options.engine.max_streams + self._options.serving.max_waiting
        if self.live > bound:
            raise Overloaded("server", f"already has {bound} requests", "retry in a few seconds")

    def _voice(self, request: ChatRequest) -> str:
        if request.voice is None:
            return self._voices[0]
        if request.voice not in self._voices:
            raise NotFound("voice", f"{request.voice[:40]!r} is not known", f"use one of {', '.join(self._voices)}")
        return request.voice

    def _on_frames(self, frames: list[StreamFrame]) -> None:
        began = time.perf_counter()
        self.frames += 1
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
        if session.ending == CANCELLED:
            self.metrics.cancelled()
        else:
            self.metrics.ended(session.ending)
        del self._sessions[session.stream]
        self._loop_thread.cancel(session.stream)
        if session.sound is not None:
            session.sound.cancel()
            self._dispatcher.offer(session.sound)
        self._observe()  # the numbers of an answer are there before its last response

    async def _watch(self) -> None:
        """Polls cancellation of all live requests together and keeps the supervisor's count."""
        while True:
            self._pulse.beat()
            for session in list(self._sessions.values()):
                if session.reply.is_cancelled():
                    session.cancel()
            if self._orders.overdue:
                await self._fail_all(Draining("server", "stopped before this answer was complete", "send it again"))
            self._owed.retry()
            self._observe()
            self._orders.show(self.live)
            await asyncio.sleep(self._options.serving.cancel_poll_s)

    async def _fail_all(self, error: ServeError) -> None:
        """Ends every request: those that are being prepared, waiting and running ones."""
        before, self._ending = self._ending, error
        for task in list(self._tasks):
            task.cancel()
        for session in list(self._sessions.values()):
            session.fail(error)
        await asyncio.sleep(0)  # the cancelled tasks answer with ``_ending``
        self._ending = before

    async def _end_all(self, error: ServeError) -> None:
        await self._fail_all(error)
        self._ending = error

    def _hung(self, error: ServeError) -> None:
        """A stage hangs. Triton does not start one again, so this process ends and the supervisor starts all."""
        log_fault(logger, str(error), error)
        task = self._aio.create_task(self._end_all(error))
        task.add_done_callback(lambda _: self._aio.call_later(DEATH_DELAY_S, self._die))

    def _died(self, error: BaseException) -> None:
        """This thread cannot go on."""
        for session in list(self._sessions.values()):
            session.fail(EngineFault("server", f"failed ({kind(error)})", FAULT_REMEDY))
        time.sleep(DEATH_DELAY_S)
        self._die()

    # ---- frame loop thread ----

    def _frames(self, frames: list[StreamFrame]) -> None:
        self._aio.call_soon_threadsafe(self._on_frames, frames)

    def _fault(self, error: BaseException) -> None:
        fault = EngineFault("engine", f"failed ({kind(error)})", FAULT_REMEDY)
        with contextlib.suppress(TimeoutError):  # the other thread may be dead too
            self._thread.run(self._end_all(fault)).result(DEATH_DELAY_S)
        time.sleep(DEATH_DELAY_S)
        self._die()


def _stream_ids() -> itertools.count[int]:
    """Ids that a restarted server does not repeat, so that state of a dead one is never taken for its own."""
    return itertools.count(time.time_ns() // 1000 << 10)
