"""What a client may choose for one answer. Validated on construction; knows no transport."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.errors import InvalidRequest

MODES = ("s2s", "s2t")
DEFAULT_MODE = "s2s"
DEFAULT_MAX_TOKENS = 2048
MAX_BANNED_PAIRS = 4


def _check(field: str, value: float, low: float, high: float, remedy: str, exclusive_low: bool = False) -> None:
    if not (low < value <= high if exclusive_low else low <= value <= high):  # a NaN fails too
        bracket = "(" if exclusive_low else "["
        raise InvalidRequest(field, f"is {value}, outside {bracket}{low}, {high}]", remedy)


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How ids are chosen. Defaults are those of the authors' example.

    ``greedy`` takes the argmax of the processed scores everywhere; ``text_greedy`` the argmax of
    the raw text logits. ``banned_pairs`` (a, b) forbid text id b directly after a.
    """

    greedy: bool = False
    text_greedy: bool = True
    temperature: float = 0.8
    top_p: float = 0.9
    top_k: int = 0
    repetition_penalty: float = 1.2
    seed: int = 0
    banned_pairs: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0.01, 10.0, "use greedy=true for no randomness")
        _check("top_p", self.top_p, 0.0, 1.0, "1 switches it off", exclusive_low=True)
        _check("top_k", self.top_k, 0, 1_000_000, "0 switches it off")
        _check("repetition_penalty", self.repetition_penalty, 0.1, 10.0, "1 switches it off")
        _check("seed", self.seed, 0, 2**63 - 1, "any 63-bit number will do")
        _check("banned_pairs", len(self.banned_pairs), 0, MAX_BANNED_PAIRS, "give fewer pairs")


@dataclass(frozen=True, slots=True)
class AnswerParams:
    """Shape of the answer: mode, length limit in text steps, forced start of speech, sampling."""

    mode: str = DEFAULT_MODE
    max_tokens: int = DEFAULT_MAX_TOKENS
    force_audio_start: bool = True
    sampling: SamplingParams = SamplingParams()

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidRequest("mode", f"is {self.mode!r}", f"use one of {', '.join(MODES)}")
        _check("max_tokens", self.max_tokens, 1, 1_000_000, "choose the longest answer that you want")

    @property
    def speaks(self) -> bool:
        """Whether the speech head runs."""
        return self.mode == "s2s"
