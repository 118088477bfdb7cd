"""The rules of one answer: forced start, speech spans, end of speech inside a group, stop.

Plain Python: ids in, what is emitted out. Source: the authors' generate() (reference, section 2.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runtime.families.fun_audio_chat.config import FRAME_S, SpeechIds, TextIds
from runtime.params import AnswerParams
from runtime.scheduling.stream import Frame


@dataclass(slots=True)
class Answer:
    """State of one answer. ``accept`` is called once per forward, the prefill included."""

    text_ids: TextIds
    speech_ids: SpeechIds
    params: AnswerParams
    forwards: int = 0
    speaking: bool = False  # groups of the next forward are emitted

    @property
    def frame_s(self) -> float:
        """Seconds of speech in one frame."""
        return FRAME_S

    def accept(self, ids: Sequence[int]) -> Frame:
        """Takes what one forward chose: the text id, then a group of codes that only a speaking answer looks at."""
        text_id, codes = ids[0], tuple(ids[1:]) if self.params.speaks else ()
        if self.forwards == 0 and self.params.force_audio_start:
            text_id = self.text_ids.audio_bos
        self.forwards += 1
        # The stop test comes before the overwrite below: an end of text in the same step still ends the answer.
        finish = self._finish(text_id)
        emitted = codes if self.speaking else ()
        ended = self.speech_ids.eos in emitted
        if ended:
            # The whole group is lost, valid codes before the end included.
            emitted = (self.speech_ids.eos,) * len(emitted)
            text_id = self.text_ids.audio_eos
        self.speaking = bool(codes) and ((self.speaking and not ended) or text_id == self.text_ids.audio_bos)
        tokens = tuple(code for code in emitted if code < self.speech_ids.first_control)
        return Frame((text_id,), emitted, tokens, ended, finish)

    def _finish(self, text_id: int) -> str:
        if text_id in self.text_ids.stop:
            return "stop"
        return "length" if self.forwards >= self.params.max_tokens else ""
