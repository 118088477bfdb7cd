"""One request of the public model, from tensors and parameters to checked values. No Triton here."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np

from client.protocol.requests import DEFAULT_PRIORITY, PRIORITIES, Priority
from runtime.errors import InvalidRequest, client_name
from runtime.frontend.audio import check_rate
from runtime.params import DEFAULT_MODE, AnswerParams, SamplingParams
from runtime.requests.limits import RequestLimits
from runtime.requests.messages import Message, parse_messages, single_turn, whole_characters
from runtime.token2wav.hops import EARLIEST_HOPS, requested_hops

SCALARS = (bool, int, float, str)


def _scalars(kind: type) -> dict[str, type]:
    """Names and types of a dataclass's fields that a client can send as a parameter."""
    return {name: hint for name, hint in get_type_hints(kind).items() if hint in SCALARS}


# Parameters that Triton itself adds, and headers that an operator has it forward.
FOREIGN_PREFIXES = ("triton_", "x-")
SAMPLING = _scalars(SamplingParams)
ANSWER = _scalars(AnswerParams)
PARAMETERS: dict[str, type] = {
    **SAMPLING,
    **ANSWER,
    "sample_rate": int,
    "voice": str,
    "system": str,
    "hops": str,
    "earliest": bool,
    "banned_pairs": str,
    # Not "priority": Triton keeps that name to itself, takes integers only and shows them to no Python model.
    "urgency": str,
}
PAIRS = re.compile(r"\d{1,9}:\d{1,9}(,\d{1,9}:\d{1,9})*", re.ASCII)
WARMUP_SEED = 1  # every start makes the same answer
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Parameters:
    """The checked parameters of a request.

    ``voice``, ``system`` and ``hops`` are None for the default; ``given`` are the names that the client set.
    """

    answer: AnswerParams
    priority: Priority
    sample_rate: int
    voice: str | None
    system: str | None
    hops: tuple[int, ...] | None
    given: frozenset[str]


def parse_parameters(given: Mapping[str, Any], model_rate: int, limits: RequestLimits) -> Parameters:
    """Checks all that can be checked before a tensor is touched.

    Args:
        given: scalars by name, as numbers, booleans or strings.
        model_rate: default of ``sample_rate``.
        limits: of the strings.

    Raises:
        InvalidRequest: the message names the parameter and the remedy.
    """
    values = typed_values(given)
    limits.check_strings(values)
    urgency = values.get("urgency", DEFAULT_PRIORITY.name.lower())
    if urgency not in PRIORITIES:
        raise InvalidRequest("urgency", f"is {urgency[:40]!r}", f"use one of {', '.join(PRIORITIES)}")
    rate = values.get("sample_rate", model_rate)
    check_rate(rate)
    return Parameters(
        answer=_answer_params(values),
        priority=Priority[urgency.upper()],
        sample_rate=rate,
        voice=values.get("voice"),
        system=values.get("system"),
        hops=_hops(values),
        given=frozenset(values),
    )


def typed_values(given: Mapping[str, Any]) -> dict[str, Any]:
    """Known parameters in their types. Numbers and booleans may come as strings."""
    values = {}
    for name, value in given.items():
        if name.startswith(FOREIGN_PREFIXES):
            continue
        if name not in PARAMETERS:
            raise InvalidRequest(client_name(name), "is not a parameter", f"use {', '.join(sorted(PARAMETERS))}")
        values[name] = _typed(name, value, PARAMETERS[name])
    return values


def read_messages(
    arrays: Arrays, parameters: Parameters, clips: int, systems: Mapping[str, str], limits: RequestLimits
) -> list[Message]:
    """The conversation of a request: ``messages``, or a turn made of ``system``, the clips and ``text``.

    Args:
        arrays: the request's tensors by name.
        clips: number of its audio clips.
        systems: default system message of each mode.
        limits: of ``messages``; ``text`` and ``system`` were measured before.

    Raises:
        InvalidRequest: the message names the field and the remedy.
    """
    text, document = _string(arrays, "text"), _string(arrays, "messages")
    if document is None:
        system = systems[parameters.answer.mode] if parameters.system is None else parameters.system
        return single_turn(system, text, clips)
    if text is not None or parameters.system is not None:
        raise InvalidRequest(
            "text" if text is not None else "system", "is given beside messages", "put it into messages"
        )
    messages = parse_messages(document, clips)
    limits.check_messages(messages)
    return messages


def answer_params(parameters: Parameters, warmup: np.ndarray | None, room: int) -> AnswerParams:
    """The parameters of one answer.

    Args:
        warmup: ``warmup_tokens``, which bounds the answer to a warm-up sample: that carries no parameters.
        room: tokens that fit behind the prompt; the default of ``max_tokens`` gives way to it, a given one does not.
    """
    params = parameters.answer
    if warmup is not None and warmup.size:
        seed = params.sampling.seed if "seed" in parameters.given else WARMUP_SEED
        return replace(params, max_tokens=int(warmup.flat[0]), sampling=replace(params.sampling, seed=seed))
    if warmup is None and "max_tokens" not in parameters.given:
        return replace(params, max_tokens=min(params.max_tokens, room))
    return params


def _typed(name: str, value: Any, kind: type) -> Any:
    try:
        if kind is bool:
            return value if isinstance(value, bool) else BOOLEANS[str(value).lower()]
        if kind is str:
            return whole_characters(name, str(value))
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if kind is int:
            # Large integers (seeds) would lose digits on the way through a float.
            return int(value) if isinstance(value, int | str) else _whole(number)
        return number
    except (KeyError, ValueError, TypeError, OverflowError):
        raise InvalidRequest(name, f"is {str(value)[:40]!r}", f"send a value of type {kind.__name__}") from None


def _whole(number: float) -> int:
    if not number.is_integer():
        raise ValueError
    return int(number)


def _answer_params(values: Mapping[str, Any]) -> AnswerParams:
    shape = {"force_audio_start": values.get("mode", DEFAULT_MODE) == DEFAULT_MODE}
    shape |= {name: values[name] for name in ANSWER if name in values}
    sampling = {"seed": secrets.randbits(62)} | {name: values[name] for name in SAMPLING if name in values}
    if "banned_pairs" in values:
        sampling["banned_pairs"] = banned_pairs(values["banned_pairs"])
    return AnswerParams(**shape, sampling=SamplingParams(**sampling))


def banned_pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Reads `411:414,5:6`: a text id and the one that may not follow it.

    Raises:
        InvalidRequest: it is written in another way.
    """
    if not PAIRS.fullmatch(text):
        raise InvalidRequest("banned_pairs", f"is {text[:40]!r}", "send pairs of text ids such as 411:414,5:6")
    first, second = zip(*(pair.split(":") for pair in text.split(",")), strict=True)
    return tuple(zip(map(int, first), map(int, second), strict=True))


def _hops(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    earliest = values.get("earliest", False)
    if "hops" in values and earliest:
        raise InvalidRequest("earliest", "is given beside hops", "send one of them")
    return requested_hops(values["hops"]) if "hops" in values else EARLIEST_HOPS if earliest else None


def _string(arrays: Arrays, name: str) -> str | None:
    array = arrays.get(name)
    if array is None or not array.size:
        return None
    if array.size != 1:
        raise InvalidRequest(name, f"holds {array.size} strings", "send one")
    value = array.flat[0]
    try:
        return value.decode() if isinstance(value, bytes) else whole_characters(name, str(value))
    except UnicodeDecodeError:
        raise InvalidRequest(name, "is not UTF-8", "encode the text as UTF-8") from None
