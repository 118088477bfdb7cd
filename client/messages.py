"""Writes chat histories as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .errors import ChatError

REMEDY = "give a list of chat messages"
DUMPS = ("model_dump", "to_dict", "dict")  # how objects of SDKs become dictionaries


def document(messages: Any) -> str:
    """The JSON of messages: dictionaries, objects of an SDK, or text that is JSON already.

    Raises:
        ChatError: something in them cannot be written as JSON without a loss.
    """
    if isinstance(messages, str):
        return messages
    if isinstance(messages, Mapping | bytes | bytearray) or not isinstance(messages, Iterable):
        raise _wrong(f"has type {type(messages).__name__}")
    try:
        return json.dumps(list(messages), ensure_ascii=False, allow_nan=False, default=_plain)
    except ChatError:
        raise
    except Exception as error:  # of json, or of the object that was asked for its dictionary
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise _wrong(f"cannot be written as JSON ({reason})") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in DUMPS:
        if not isinstance(value, type) and callable(made := getattr(value, name, None)):
            return made()
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    kind = type(value).__name__
    raise TypeError(f"a {kind} is no text; sound goes into audio" if _is_data(value) else f"a {kind} is no text")


def _is_data(value: Any) -> bool:
    return isinstance(value, bytes | bytearray | memoryview) or hasattr(value, "__array__")


def _wrong(problem: str) -> ChatError:
    return ChatError("INVALID_ARG", "messages", f"{problem}; {REMEDY}")
