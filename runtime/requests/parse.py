"""One request of the public model, from tensors and parameters to a checked value. No Triton here."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from client.protocol.requests import DEFAULT_PRIORITY, HIGHEST_RATE, LOWEST_RATE, PRIORITIES, Priority
from runtime.errors import InvalidRequest, client_name
from runtime.families.fun_audio_chat.config import FRAME_S
from runtime.families.fun_audio_chat.prompt import Message, parse_messages, single_turn, whole_characters
from runtime.params import DEFAULT_MAX_TOKENS, DEFAULT_MODE, MODES, AnswerParams, SamplingParams
from runtime.token2wav.hops import EARLIEST_HOPS, requested_hops

# Parameters that Triton itself adds, and headers that an operator has it forward.
FOREIGN_PREFIXES = ("triton_", "x-")
SAMPLING = ("greedy", "text_greedy", "temperature", "top_p", "top_k", "repetition_penalty", "seed")
PARAMETERS: dict[str, type] = {
    "mode": str,
    "sample_rate": int,
    "voice": str,
    "system": str,
    "max_tokens": int,
    "seed": int,
    "greedy": bool,
    "text_greedy": bool,
    "force_audio_start": bool,
    "temperature": float,
    "top_p": float,
    "top_k": int,
    "repetition_penalty": float,
    "hops": str,
    "earliest": bool,
    # Not "priority": Triton keeps that name to itself, takes integers only and shows them to no Python model.
    "urgency": str,
}
WARMUP_SEED = 1  # every start makes the same answer
BOOLEANS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request.

    ``clips`` are at ``sample_rate``; ``voice`` and ``hops`` are None for the default. ``conversation``: ``messages``
    are the client's own, not made of ``system`` and ``text``. ``any_length``: it says nothing of ``max_tokens``, so
    the default gives way to what fits behind the prompt.
    """

    clips: tuple[np.ndarray, ...]
    sample_rate: int
    messages: tuple[Message, ...]
    params: AnswerParams
    voice: str | None
    hops: tuple[int, ...] | None = None
    conversation: bool = False
    any_length: bool = False


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a request from its parameters and the length of its sound alone.

    ``prompt``: positions of the prompt, at least. ``answer``: the most tokens of the answer, None for the default.
    """

    priority: Priority
    prompt: int
    answer: int | None
    speaks: bool


def outline(parameters: Mapping[str, Any], samples: int, model_rate: int) -> Outline:
    """Reads what admission needs, before any tensor is touched.

    Args:
        samples: of all clips.
        model_rate: default of ``sample_rate``.

    Raises:
        InvalidRequest: a parameter is wrong.
    """
    values = parse_parameters(parameters)
    urgency = values.get("urgency", DEFAULT_PRIORITY.name.lower())
    if urgency not in PRIORITIES:
        raise InvalidRequest("urgency", f"is {urgency[:40]!r}", f"use one of {', '.join(PRIORITIES)}")
    rate = values.get("sample_rate", model_rate)
    seconds = samples / rate if LOWEST_RATE <= rate <= HIGHEST_RATE else 0.0  # a wrong rate is refused later, by name
    return Outline(
        priority=Priority[urgency.upper()],
        prompt=int(seconds / FRAME_S),
        answer=values.get("max_tokens"),
        speaks=values.get("mode", DEFAULT_MODE) == MODES[0],
    )


def parse_request(
    arrays: Mapping[str, np.ndarray], parameters: Mapping[str, Any], clips: Sequence[np.ndarray], model_rate: int
) -> ChatRequest:
    """Checks everything that can be checked without a model.

    Args:
        arrays: the request's tensors by name.
        parameters: scalars by name, as numbers, booleans or strings.
        clips: the split audio.
        model_rate: default of ``sample_rate``.

    Raises:
        InvalidRequest: the message names the field and the remedy.
    """
    values = parse_parameters(parameters)
    text, document = _string(arrays, "text"), _string(arrays, "messages")
    mode = values.get("mode", DEFAULT_MODE)
    warmup = arrays.get("warmup_tokens")
    params = _answer_params(values, mode, warmup)
    if document is None:
        messages = single_turn(mode, values.get("system"), text, len(clips))
    elif text is not None or "system" in values:
        raise InvalidRequest(
            "text" if text is not None else "system", "is given beside messages", "put it into messages"
        )
    else:
        messages = parse_messages(document, len(clips))
    return ChatRequest(
        clips=tuple(clips),
        sample_rate=values.get("sample_rate", model_rate),
        messages=tuple(messages),
        params=params,
        voice=values.get("voice"),
        hops=_hops(values),
        conversation=document is not None,
        any_length="max_tokens" not in values and warmup is None,
    )


def parse_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Known parameters in their types. Numbers and booleans may come as strings."""
    values = {}
    for name, value in parameters.items():
        if name.startswith(FOREIGN_PREFIXES):
            continue
        if name not in PARAMETERS:
            raise InvalidRequest(client_name(name), "is not a parameter", f"use {', '.join(sorted(PARAMETERS))}")
        values[name] = _typed(name, value, PARAMETERS[name])
    return values


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


def _answer_params(values: Mapping[str, Any], mode: str, warmup: np.ndarray | None) -> AnswerParams:
    sampling = {name: values[name] for name in SAMPLING if name in values}
    max_tokens = values.get("max_tokens", DEFAULT_MAX_TOKENS)
    if warmup is not None and warmup.size:
        max_tokens = int(warmup.flat[0])
        sampling.setdefault("seed", WARMUP_SEED)
    sampling.setdefault("seed", secrets.randbits(62))
    return AnswerParams(
        mode=mode,
        max_tokens=max_tokens,
        force_audio_start=values.get("force_audio_start", mode == "s2s"),
        sampling=SamplingParams(**sampling),
    )


def _hops(values: Mapping[str, Any]) -> tuple[int, ...] | None:
    earliest = values.get("earliest", False)
    if "hops" in values and earliest:
        raise InvalidRequest("earliest", "is given beside hops", "send one of them")
    return requested_hops(values["hops"]) if "hops" in values else EARLIEST_HOPS if earliest else None


def _string(arrays: Mapping[str, np.ndarray], name: str) -> str | None:
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
