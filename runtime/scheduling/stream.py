"""One live request inside the frame loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from client.protocol.requests import DEFAULT_PRIORITY, Priority
from runtime.params import AnswerParams

FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Frame:
    """What one step of one stream gave.

    ``text_ids``: as the protocol returns them. ``codes``: emitted speech ids, control codes included.
    ``speech_tokens``: those of them that become sound. ``span_ended``: a span of speech ended with this frame.
    ``finish`` is empty, ``stop``, ``length``, or FAULT: an engine failed for this stream.
    """

    text_ids: tuple[int, ...]
    codes: tuple[int, ...] = ()
    speech_tokens: tuple[int, ...] = ()
    span_ended: bool = False
    finish: str = ""


LOST_FRAME = Frame(text_ids=(), finish=FAULT)


class Answer(Protocol):
    """The rules of one answer; every family has its own.

    ``params``: of the answer. ``forwards``: frames so far.
    """

    params: AnswerParams
    forwards: int

    @property
    def frame_s(self) -> float:
        """Seconds of speech in one frame."""

    def accept(self, ids: Sequence[int]) -> Frame:
        """Takes the ids that one step chose for the stream."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """Ids [length] int64 and the rows that replace its audio placeholders, in order [placeholders, hidden].

    ``shared``: so many first ids are a system message, which other prompts may begin with too.
    """

    ids: np.ndarray
    audio_embeds: np.ndarray
    audio_positions: np.ndarray  # [placeholders] int64
    shared: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.shared < max(1, len(self.ids)):
            raise ValueError(f"shared: {self.shared} is not a beginning of {len(self.ids)} ids")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(slots=True, eq=False)
class Stream:
    """A request's place in the loop. ``position`` is the next position of the prompt or answer to be computed.

    ``on_slot`` is told, in the thread of the loop, True when the stream gets a slot and False when the slot is free.
    """

    key: int
    prompt: Prompt
    answer: Answer
    priority: Priority = DEFAULT_PRIORITY
    on_slot: Callable[[bool], None] = lambda held: None
    slot: int = -1
    position: int = 0
    skipped: int = 0  # first positions that a shared prefix holds already
    started: float | None = None  # when its first frame was made, in the clock of the loop

    @property
    def params(self) -> AnswerParams:
        """Parameters of the answer."""
        return self.answer.params

    def lead(self, now: float) -> float:
        """Seconds of speech that a listener who began with the first frame has not heard yet.

        Text-only streams count alike: five tokens a second is about as fast as people read.
        """
        if self.started is None:
            return 0.0
        return self.answer.forwards * self.answer.frame_s - (now - self.started)

    @property
    def max_positions(self) -> int:
        """Positions that the stream can ever need, in text steps."""
        return len(self.prompt) + self.params.max_tokens
