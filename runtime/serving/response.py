"""One request of the public model from its first frame to its last response. Lives in the asyncio thread."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from client.protocol.errors import MEMORY_FULL
from client.protocol.tensors import FUN_AUDIO_CHAT
from runtime.errors import EngineFault, stage_fault
from runtime.frontend.tokenizer import TextStream
from runtime.logs import kind, log_fault
from runtime.scheduling.stream import FAULT, Frame, Stream
from runtime.serving.sound import Sound

logger = logging.getLogger(__name__)
FAILED, CANCELLED = "error", "cancelled"


class Reply(Protocol):
    """Where the responses of one request go."""

    def send(self, arrays: dict[str, np.ndarray], final: bool) -> None:
        """One response with every output of the contract that the client asked for."""

    def fail(self, error: BaseException) -> None:
        """The last response, an error."""

    def close(self) -> None:
        """Ends the responses without a further one: the client is gone."""

    def is_cancelled(self) -> bool:
        """Whether the client went away."""


@dataclass(slots=True)
class Timings:
    """Moments of a request, seconds of ``time.monotonic``; None until they happen.

    ``on_mark`` is called with each moment's name and the seconds since the request was received.
    """

    received: float = field(default_factory=time.monotonic)
    encoded: float | None = None
    first_frame: float | None = None
    first_text: float | None = None
    first_audio: float | None = None
    on_mark: Callable[[str, float], None] = lambda name, seconds: None

    def mark(self, name: str) -> None:
        """Records the first time that something happens."""
        if getattr(self, name) is None:
            now = time.monotonic()
            setattr(self, name, now)
            self.on_mark(name, now - self.received)

    def milliseconds(self) -> dict[str, float | None]:
        """Each moment and the total, in ms since the request was received."""
        names = ("encoded", "first_frame", "first_text", "first_audio")
        moments = {f"{name}_ms": getattr(self, name) for name in names} | {"total_ms": time.monotonic()}
        return {k: None if t is None else round((t - self.received) * 1000, 3) for k, t in moments.items()}


class Session:
    """Turns frames and sound into responses.

    Args:
        reply: where they go.
        outputs: names of the outputs that the client wants.
        stream: its place in the frame loop.
        text: decoder of the answer's text.
        closed: called once, when the last response is sent.
    """

    def __init__(
        self,
        reply: Reply,
        outputs: frozenset[str],
        stream: Stream,
        text: TextStream,
        timings: Timings,
        closed: Callable[[Session], None],
    ) -> None:
        self.reply, self.stream = reply, stream
        self.sound: Sound | None = None
        self._outputs, self._text = outputs, text
        self._timings, self._closed = timings, closed
        self._finish_reason = ""
        self.ending = ""  # how it ended: a finish reason, "error" or CANCELLED
        self._counts = {"text_tokens": 0, "speech_tokens": 0, "audio_samples": 0}
        self.open = True
        self._over = False  # the last response is on its way

    def on_frame(self, frame: Frame) -> None:
        """A frame of the loop: text goes out at once, codes go to the sound."""
        if frame.finish == FAULT:
            self.fail(EngineFault("engine", "gave numbers that are not finite", "send the request again"))
        else:
            self._or_fail(lambda: self._frame(frame))

    def on_audio(self, samples: np.ndarray) -> None:
        """Samples of the next chunk."""
        self._or_fail(lambda: self._audio(samples))

    def _or_fail(self, action: Callable[[], None]) -> None:
        """What goes wrong in here ends this answer and no other."""
        try:
            action()
        except Exception as error:
            log_fault(logger, "a response could not be made", error)
            problem = f"could not make a response ({kind(error)})"
            fault = EngineFault(FUN_AUDIO_CHAT.name, problem, "this is a fault of the server: see its log")
            self.fail(stage_fault(str(error), FUN_AUDIO_CHAT.name) if MEMORY_FULL in str(error) else fault)

    def _frame(self, frame: Frame) -> None:
        self._timings.mark("first_frame")
        text = "".join(self._text.push(text_id) for text_id in frame.text_ids)
        if frame.finish:
            text += self._text.finish()
            self._finish_reason = frame.finish
        self._counts["text_tokens"] += len(frame.text_ids)
        self._counts["speech_tokens"] += len(frame.codes)
        if self.sound is not None:
            self.sound.push(list(frame.speech_tokens))
            if frame.span_ended or frame.finish:
                self.sound.end_span()
        if text:
            self._timings.mark("first_text")
        final = self._complete
        if text or final or self._outputs & {"text_token_ids", "speech_token_ids"}:
            self._send(text=text, text_ids=frame.text_ids, codes=frame.codes, final=final)

    def _audio(self, samples: np.ndarray) -> None:
        if len(samples):
            self._timings.mark("first_audio")
        self._counts["audio_samples"] += len(samples)
        if len(samples):
            self._send(audio=samples)
        if self._complete:  # apart from the sound: a large last response that finds no room cannot be sent again
            self._send(final=True)

    def fail(self, error: BaseException) -> None:
        """Ends the request with an error."""
        if self._over:
            return
        self._over = True
        if self.open:  # else it failed while its last response was made
            self._close(FAILED)
        self.reply.fail(error)

    def cancel(self) -> None:
        """Ends the request of a client that is gone."""
        if self.open:
            self._over = True
            self._close(CANCELLED)
            self.reply.close()

    @property
    def _complete(self) -> bool:
        return bool(self._finish_reason) and (self.sound is None or self.sound.done)

    def _send(
        self,
        text: str = "",
        audio: np.ndarray | None = None,
        text_ids: tuple[int, ...] = (),
        codes: tuple[int, ...] = (),
        final: bool = False,
    ) -> None:
        arrays: dict[str, Any] = {
            "text": np.array([text.encode()], np.object_),
            "audio": np.zeros(0, np.float32) if audio is None else audio,
            "finish_reason": np.array([self._finish_reason.encode() if final else b""], np.object_),
            "text_token_ids": np.array(text_ids, np.int32),
            "speech_token_ids": np.array(codes, np.int32),
            "stats": np.array([self._stats().encode() if final else b""], np.object_),
        }
        if final:
            self._close(self._finish_reason)
        self.reply.send({name: array for name, array in arrays.items() if name in self._outputs}, final)
        self._over = self._over or final

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

    def _close(self, ending: str) -> None:
        self.open, self.ending = False, ending
        self._closed(self)
