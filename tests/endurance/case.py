"""One fuzz case: what is sent, what may come back, and the verdict on what came."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from tritonclient.grpc import service_pb2
from tritonclient.utils import serialize_byte_tensor

from client.protocol.tensors import FUN_AUDIO_CHAT
from client.request import EMPTY_FINAL_RESPONSE, FINAL_RESPONSE
from tests.endurance.outcome import End, Outcome, flaw, refused_by_triton, typed
from tests.endurance.traffic import ALL_OUTPUTS

__all__ = ["FINAL_RESPONSE", "Case", "Expect", "Verdict", "add_tensor", "draft", "judge", "set_parameter"]


class Expect(StrEnum):
    """What a case must lead to. ``EITHER``: a clear error or a correct answer."""

    ANSWER = "answer"
    ERROR = "error"
    EITHER = "either"


class Verdict(StrEnum):
    """What a case led to. The last four are failures."""

    ANSWER = "answers"
    TYPED = "typed_errors"
    TRITON = "triton_refusals"
    LEFT = "left"  # the answer was long, and the client left
    UNTYPED = "untyped_errors"
    WRONG = "wrong"
    HANG = "hangs"
    CRASH = "crashes"


FAILURES = (Verdict.UNTYPED, Verdict.WRONG, Verdict.HANG, Verdict.CRASH)


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent.

    Args:
        kind: name of the strategy.
        payload: one serialised request, or what pretends to be one.
        expect: what it must lead to.
        outputs: that are asked for; None when the case does not say.
        max_tokens: of the answer; None when the case does not say.
        positions: prompt positions that a correct server counts; None when the case does not say.
    """

    kind: str
    payload: bytes
    expect: Expect = Expect.EITHER
    outputs: frozenset[str] | None = ALL_OUTPUTS
    max_tokens: int | None = None
    positions: int | None = None

    def __repr__(self) -> str:
        """Short enough for a log: the payload is saved beside it."""
        return f"Case({self.kind}, {len(self.payload)} bytes, {self.expect}, {self.payload[:200]!r})"


def draft(outputs: frozenset[str] = ALL_OUTPUTS) -> Any:
    """A request without inputs and parameters."""
    request = service_pb2.ModelInferRequest(model_name=FUN_AUDIO_CHAT.name)
    request.parameters[EMPTY_FINAL_RESPONSE].bool_param = True
    if outputs != ALL_OUTPUTS:
        for name in sorted(outputs):
            request.outputs.add().name = name
    return request


def add_tensor(request: Any, name: str, array: np.ndarray, datatype: str) -> None:
    """A well-formed tensor."""
    request.inputs.add(name=name, datatype=datatype).shape.extend(array.shape)
    raw = serialize_byte_tensor(array).item() if datatype == "BYTES" and array.size else array.tobytes()
    request.raw_input_contents.append(raw if array.size else b"")


def set_parameter(request: Any, name: str, value: bool | int | float | str) -> None:
    """A parameter in the field of its type."""
    slot = request.parameters[name]
    if isinstance(value, bool):
        slot.bool_param = value
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        slot.int64_param = value
    elif isinstance(value, int) and 0 <= value < 2**64:
        slot.uint64_param = value
    elif isinstance(value, float):
        slot.double_param = value
    else:
        slot.string_param = str(value)


def judge(case: Case, outcome: Outcome) -> tuple[Verdict, str]:
    """The verdict on a case, and why where it failed."""
    match outcome.end:
        case End.ANSWER:
            return _judge_answer(case, outcome)
        case End.ERROR:
            return _judge_error(case, outcome.error)
        case End.CANCELLED:
            return Verdict.LEFT, ""
        case End.LOST:
            return Verdict.CRASH, outcome.error
        case End.HANG:
            return Verdict.HANG, "no last response"
    if not _parses(case.payload):  # Triton ends a stream on which it cannot read a message
        return Verdict.TRITON, ""
    return Verdict.HANG, "the stream ended without a last response"


def _parses(payload: bytes) -> bool:
    try:
        service_pb2.ModelInferRequest.FromString(payload)
    except DecodeError:
        return False
    return True


def _judge_answer(case: Case, outcome: Outcome) -> tuple[Verdict, str]:
    if case.expect == Expect.ERROR:
        return Verdict.WRONG, "was answered"
    if case.outputs is None:
        return Verdict.ANSWER, ""
    wrong = flaw(outcome, case.outputs, case.max_tokens)
    if not wrong and case.positions is not None and outcome.stats is not None:
        counted = outcome.stats["prompt_positions"]
        wrong = f"{counted} prompt positions, {case.positions} expected" if counted != case.positions else ""
    return (Verdict.WRONG, wrong) if wrong else (Verdict.ANSWER, "")


def _judge_error(case: Case, error: str) -> tuple[Verdict, str]:
    if typed(error):
        internal = error.removeprefix("[").startswith("INTERNAL") or "] INTERNAL: " in error
        if case.expect == Expect.ANSWER or internal:
            return Verdict.WRONG, error
        return Verdict.TYPED, ""
    if refused_by_triton(error) and case.expect != Expect.ANSWER:
        return Verdict.TRITON, ""
    return Verdict.UNTYPED, error
