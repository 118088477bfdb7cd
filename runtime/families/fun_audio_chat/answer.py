"""The rules of one answer: forced start, speech spans, end of speech inside a group, stop.

Plain Python: ids in, what is emitted out. Source: the authors' generate() (reference, section 2.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runtime.families.fun_audio_chat.config import SpeechIds, TextIds
from runtime.params import AnswerParams

FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Frame:
    """What one forward of one stream gave.

    ``text_id`` is the returned id (after forced start and end-of-speech overwrite), ``codes`` the
    emitted group, empty when none is; ``speech_ended`` says that a span ended with this group;
    ``finish`` is empty, ``stop``, ``length``, or FAULT: an engine failed for this stream.
    """

    text_id: int
    codes: tuple[int, ...]
    speech_ended: bool
    finish: str


@dataclass(slots=True)
class Answer:
    """State of one answer. ``accept`` is called once per forward, the prefill included."""

    text_ids: TextIds
    speech_ids: SpeechIds
    params: AnswerParams
    forwards: int = 0
    speaking: bool = False  # groups of the next forward are emitted
    feeding: bool = False  # the last emitted group is mixed into the next backbone input
    last_text_id: int = -1
    spoken: set[int] = field(default_factory=set)  # distinct emitted codes, end-of-speech fill included

    def accept(self, text_id: int, codes: Sequence[int]) -> Frame:
        """Takes the ids chosen by one forward.

        Args:
            text_id: as the text head chose it.
            codes: the group, or empty for a text-only stream.
        """
        if self.forwards == 0 and self.params.force_audio_start:
            text_id = self.text_ids.audio_bos
        self.forwards += 1
        # The stop test comes before the overwrite below: an end of text in the same step still ends the answer.
        finish = self._finish(text_id)
        emitted = tuple(codes) if self.speaking else ()
        ended = self.speech_ids.eos in emitted
        if ended:
            # The whole group is lost, valid codes before the end included.
            emitted = (self.speech_ids.eos,) * len(emitted)
            text_id = self.text_ids.audio_eos
        self.spoken.update(emitted)
        self.feeding = bool(emitted) and not ended
        self.speaking = bool(codes) and ((self.speaking and not ended) or text_id == self.text_ids.audio_bos)
        self.last_text_id = text_id
        return Frame(text_id, emitted, ended, finish)

    def _finish(self, text_id: int) -> str:
        if text_id in self.text_ids.stop:
            return "stop"
        return "length" if self.forwards >= self.params.max_tokens else ""
