"""The responses of one request, made of its frames and its sound as they come. Lives in the asyncio thread."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any

import numpy as np

from client.protocol.errors import MEMORY_FULL
from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime.errors import EngineFault, ServeError, stage_fault
from runtime.frontend.tokenizer import TextStream
from runtime.logs import kind, log_fault
from runtime.scheduling.stream import FAULT, Frame, Stream
from runtime.serving.metrics import Metrics
from runtime.serving.request import Request
from runtime.serving.sound import Sound
from runtime.serving.sound_queue import SoundQueue

logger = logging.getLogger(__name__)
Event = Frame | np.ndarray | ServeError  # a frame, the samples of a chunk, what ended the sound


class Response:
    """Turns frames and sound into responses.

    Args:
        stream: the request's place in the frame loop.
        text: decoder of the answer's text.
        sounds: told of every new chunk of ``sound``, which is None where the client wants none.
    """

    def __init__(
        self,
        request: Request,
        stream: Stream,
        text: TextStream,
        sounds: SoundQueue,
        metrics: Metrics,
    ) -> None:
        self.stream = stream
        self.sound: Sound | None = None
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.finish_reason = ""
        self._sender, self._outputs, self._timings = request.sender, request.outputs, request.timings
        self._text, self._sounds, self._metrics = text, sounds, metrics
        self._counts = {"text_tokens": 0, "speech_tokens": 0, "audio_samples": 0}

    async def run(self) -> dict[str, Any]:
        """Sends all responses but the last, and returns that one's outputs.

        Raises:
            ServeError: what ended the answer; also whatever goes wrong in here.
        """
        while True:
            event = await self.events.get()
            if isinstance(event, ServeError):
                raise event
            try:
                last = self._frame(event) if isinstance(event, Frame) else self._audio(event)
            except Exception as error:
                raise response_fault(error) from None
            if last is not None:
                return last

    def _frame(self, frame: Frame) -> dict[str, Any] | None:
        """Text goes out at once, codes go to the sound."""
        if frame.finish == FAULT:
            raise EngineFault("engine", "gave numbers that are not finite", "send the request again")
        began = time.perf_counter()
        self._timings.mark("first_frame")
        text = "".join(self._text.push(text_id) for text_id in frame.text_ids)
        if frame.finish:
            text += self._text.finish()
            self.finish_reason = frame.finish
        self._counts["text_tokens"] += len(frame.text_ids)
        self._counts["speech_tokens"] += len(frame.codes)
        if self.sound is not None:
            self.sound.push(list(frame.speech_tokens))
            if frame.span_ended or frame.finish:
                self.sound.end_span()
        if text:
            self._timings.mark("first_text")
        last = None
        if self._complete:
            last = self._last(text, frame.text_ids, frame.codes)
        elif text or self._outputs & {"text_token_ids", "speech_token_ids"}:
            self._send(text, text_ids=frame.text_ids, codes=frame.codes)
        if self.sound is not None:
            self._sounds.offer(self.sound)
        self._metrics.frame_seconds += time.perf_counter() - began
        return last

    def _audio(self, samples: np.ndarray) -> dict[str, Any] | None:
        if len(samples):
            self._timings.mark("first_audio")
            self._counts["audio_samples"] += len(samples)
            self._send(audio=samples)
        # Apart from the sound: a large last response that finds no room cannot be sent again.
        return self._last() if self._complete else None

    @property
    def _complete(self) -> bool:
        return bool(self.finish_reason) and (self.sound is None or (self.sound.done and self.events.empty()))

    def _send(self, text: str = "", **given: Any) -> None:
        self._sender.send(self._arrays(text, **given), final=False)

    def _last(self, text: str = "", text_ids: tuple[int, ...] = (), codes: tuple[int, ...] = ()) -> dict[str, Any]:
        return self._arrays(text, text_ids=text_ids, codes=codes, finish_reason=self.finish_reason, stats=self._stats())

    def _arrays(
        self,
        text: str,
        audio: np.ndarray | None = None,
        text_ids: tuple[int, ...] = (),
        codes: tuple[int, ...] = (),
        finish_reason: str = "",
        stats: str = "",
    ) -> dict[str, Any]:
        arrays: dict[str, Any] = {
            "text": np.array([text.encode()], np.object_),
            "audio": np.zeros(0, np.float32) if audio is None else audio,
            "finish_reason": np.array([finish_reason.encode()], np.object_),
            "text_token_ids": np.array(text_ids, np.int32),
            "speech_token_ids": np.array(codes, np.int32),
            "stats": np.array([stats.encode()], np.object_),
        }
        return {name: array for name, array in arrays.items() if name in self._outputs}

    def _stats(self) -> str:
        facts = {
            "prompt_positions": len(self.stream.prompt),
            "shared_positions": self.stream.skipped,
            "seed": self.stream.params.sampling.seed,
            **self._counts,
            "audio_chunks": 0 if self.sound is None else self.sound.chunks,
            **self._timings.milliseconds(),
        }
        return json.dumps(facts)


def response_fault(error: Exception) -> ServeError:
    """The error for a client whose response could not be made or sent; it ends that answer and no other."""
    if isinstance(error, ServeError):
        return error
    log_fault(logger, "a response could not be made", error)
    if MEMORY_FULL in str(error):
        return stage_fault(str(error), FUN_AUDIO_CHAT.name)
    problem = f"could not make a response ({kind(error)})"
    return EngineFault(FUN_AUDIO_CHAT.name, problem, "this is a fault of the server: see its log")
