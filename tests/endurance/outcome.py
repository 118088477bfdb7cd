"""What became of one request on the wire, and whether that is right. Knows the protocol, no connections."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

from client.chunks import chunk_of
from client.errors import from_message
from client.protocol.tensors import FUN_AUDIO_CHAT
from client.request import FINAL_RESPONSE

SAMPLES_PER_CODE = 960  # 24 kHz at 25 codes a second
FIRST_CONTROL = 6561  # codes from here on are no sound
DTYPES = {spec.name: spec.dtype for spec in FUN_AUDIO_CHAT.outputs}
FINISHES = ("stop", "length")


class End(StrEnum):
    """How a request ended."""

    ANSWER = "answer"
    ERROR = "error"  # in the stream, or as the status of the call
    CANCELLED = "cancelled"
    HANG = "hang"  # no last response in time
    LOST = "lost"  # the server went away
    CUT = "cut"  # the stream ended in order, but without a last response


@dataclass(slots=True)
class Outcome:
    """One request as its client saw it. ``ids``, ``codes``, ``audio``: the answer so far, in order."""

    end: End = End.CUT
    error: str = ""
    text: str = ""
    ids: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    audio: list[np.ndarray] = field(default_factory=list)
    finish: str = ""
    stats: dict[str, Any] | None = None
    responses: int = 0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether the last response was seen."""
        return self.end in (End.ANSWER, End.ERROR)

    @property
    def samples(self) -> int:
        """Samples of sound that came."""
        return sum(map(len, self.audio))

    @property
    def sound(self) -> np.ndarray:
        """All sound that came. # [samples]"""
        return np.concatenate([np.zeros(0, np.float32), *self.audio])

    def add(self, response: Any) -> None:
        """Takes one response of the stream."""
        self.responses += 1
        if response.error_message:
            self.end, self.error = End.ERROR, response.error_message
            return
        answer = response.infer_response
        chunk = chunk_of(answer) if readable(answer) else None
        if chunk is not None:
            self.text += chunk.text
            self.ids += chunk.text_token_ids.tolist()
            self.codes += chunk.speech_token_ids.tolist()
            self.audio += [chunk.audio] if len(chunk.audio) else []
            self.finish += chunk.finish_reason
            self.stats = dict(chunk.stats) if chunk.stats else self.stats
        if answer.parameters[FINAL_RESPONSE].bool_param:
            self.end = End.ANSWER


def readable(answer: Any) -> bool:
    """Whether a response has the outputs of the contract in its types; Triton's classification makes others of them."""
    return all(DTYPES.get(output.name) == output.datatype for output in answer.outputs)


def typed(error: str) -> bool:
    """Whether an error reads ``CODE: field: problem; remedy`` with a code of ours."""
    known = from_message(error)
    return known is not None and "; " in known.message


# What Triton itself says of a request that never reaches our code. Each names what is wrong.
TRITON_REFUSALS = tuple(
    re.compile(pattern, re.S)
    for pattern in (
        r"unexpected inference (input|output) '",
        r"inference input '.*' data-type is '",
        r"unexpected shape for input '",
        r"(input|output) '.*' already exists in request",
        r"Request for unknown model: '.*' (version \d+ )?is not found",
        r"invalid value type for '.*' parameter, expected",
        r"unexpected number of string elements \d+ for inference input",
        r"expected \d+ string elements for inference input '.*', got",
        r"contents field must not be specified when using raw_input_contents",
        r"unable to find data for input tensor '",
        r"invalid model version specified '.*' , version should be",
        r"incomplete string (data|length indicator) for inference input '",
        r"expected \d+ inputs but got \d+ inputs for model",
        r"invalid value for 'classification' parameter, expected",
        r"All input dimensions should be specified for input '.*' for model",
        r"input byte size mismatch for input '.*' for model",
        r"unexpected explicit tensor data for input tensor '.*' for model",
        r"failed to get model version from specified version string",
        r"parameter keys starting with 'triton_' are reserved for Triton usage",
        r"invalid value (type )?for '",
        r"'shared_memory_byte_size' can not be specified without",
        r"Unable to find shared memory region: '",
    )
)


def refused_by_triton(error: str) -> bool:
    """Whether an error is one of Triton's own clear refusals."""
    return any(pattern.search(error) for pattern in TRITON_REFUSALS)


def flaw(outcome: Outcome, outputs: frozenset[str], max_tokens: int | None = None) -> str:
    """What is wrong with a complete answer, given the outputs that were asked for; empty when nothing is."""
    if outcome.end != End.ANSWER:
        return f"ended by {outcome.end}: {outcome.error}"
    checks = (_flaw_of_finish, _flaw_of_length, _flaw_of_sound, _flaw_of_stats)
    return next((found for check in checks if (found := check(outcome, outputs, max_tokens))), "")


def _flaw_of_finish(outcome: Outcome, outputs: frozenset[str], max_tokens: int | None) -> str:
    if "finish_reason" in outputs and outcome.finish not in FINISHES:
        return f"finish_reason is {outcome.finish!r}"
    return ""


def _flaw_of_length(outcome: Outcome, outputs: frozenset[str], max_tokens: int | None) -> str:
    if "text_token_ids" not in outputs or max_tokens is None:
        return ""
    count = len(outcome.ids)
    if not 1 <= count <= max_tokens:
        return f"{count} text ids for max_tokens {max_tokens}"
    if outcome.finish == "length" and count != max_tokens:
        return f"finish_reason is length after {count} of {max_tokens} text ids"
    return ""


def _flaw_of_sound(outcome: Outcome, outputs: frozenset[str], max_tokens: int | None) -> str:
    if not {"audio", "speech_token_ids"} <= outputs:
        return ""
    spoken = sum(code < FIRST_CONTROL for code in outcome.codes)
    if outcome.samples != spoken * SAMPLES_PER_CODE:
        return f"{outcome.samples} samples for {spoken} codes of sound"
    return "" if all(np.isfinite(part).all() for part in outcome.audio) else "the sound is not finite"


def _flaw_of_stats(outcome: Outcome, outputs: frozenset[str], max_tokens: int | None) -> str:
    if "stats" not in outputs:
        return ""
    if outcome.stats is None:
        return "no stats"
    if "audio" in outputs and outcome.stats["audio_samples"] != outcome.samples:
        return f"stats count {outcome.stats['audio_samples']} samples, {outcome.samples} came"
    if "text_token_ids" in outputs and outcome.stats["text_tokens"] != len(outcome.ids):
        return f"stats count {outcome.stats['text_tokens']} text ids, {len(outcome.ids)} came"
    return ""
