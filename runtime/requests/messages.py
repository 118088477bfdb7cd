"""The conversation of a request: turns of text and sound, as the client wrote them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

from runtime.errors import InvalidRequest, client_name

ROLES = ("system", "user", "assistant", "tool")
CALL_KEYS = frozenset({"name", "tool_call_id"})  # of a tool's message: which call it answers; the model sees the order
NOTHING: tuple[Any, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: text parts and None for each audio clip, in order."""

    role: str
    parts: tuple[str | None, ...]


def single_turn(system: str, text: str | None, clips: int) -> list[Message]:
    """A system message and one user turn: the clips, then the text.

    Raises:
        InvalidRequest: there is neither audio nor text.
    """
    if not clips and text is None:
        raise InvalidRequest("audio", "the request has no audio, text or messages", "send at least one of them")
    user = (None,) * clips + (() if text is None else (text,))
    return [Message("system", (system,)), Message("user", user)]


def parse_messages(document: str, clips: int) -> list[Message]:
    """The ``messages`` input: a JSON list in the style of OpenAI's chat completions.

    Raises:
        InvalidRequest: malformed JSON, an unknown role, part or value, or another number of audio parts than clips.
    """
    try:
        items = json.loads(document, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        raise _bad("", f"is not JSON ({str(error)[:80]})") from None
    if not isinstance(items, list) or not items:
        raise _bad("", "is not a non-empty list")
    messages = [_message(f"[{i}]", item) for i, item in enumerate(items)]
    spoken = sum(part is None for message in messages for part in message.parts)
    if spoken != clips:
        raise _bad("", f"has {spoken} audio parts for {clips} audio clips", "send one clip per audio part, in order")
    if messages[-1].role not in ("user", "tool"):
        raise _bad(f"[{len(messages) - 1}].role", f"is {messages[-1].role!r}", "end with the turn to be answered")
    return messages


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _message(where: str, item: Any) -> Message:
    if not isinstance(item, dict) or not {"role", "content"} <= item.keys():
        raise _bad(where, "is not an object with role and content")
    role, content = item["role"], item["content"]
    if role not in ROLES:
        raise _bad(f"{where}.role", f"is {str(role)[:40]!r}", f"use one of {', '.join(ROLES)}")
    _check_keys(where, item, {"role", "content"} | (CALL_KEYS if role == "tool" else set()))
    for key in CALL_KEYS & item.keys():
        if item[key] not in NOTHING and not isinstance(item[key], str):
            raise _bad(f"{where}.{key}", "is no string", "send the string that came with the call")
    if isinstance(content, str):
        return Message(role, (_text(f"{where}.content", content),))
    if not isinstance(content, list):
        problem = "is null" if content is None else "is neither a string nor a list of parts"
        raise _bad(f"{where}.content", problem, "send a string or a list of parts")
    return Message(role, tuple(_part(f"{where}.content[{j}]", part) for j, part in enumerate(content)))


def _check_keys(where: str, item: Mapping[str, Any], known: Set[str]) -> None:
    """Refuses every value that the model would not see; what SDKs write for 'nothing' is nothing."""
    for key in sorted(item.keys() - known):
        if item[key] not in NOTHING:
            problem = "has a value that the model would not see"
            raise _bad(
                f"{where}.{client_name(key)}", problem, f"leave it out; understood here: {', '.join(sorted(known))}"
            )


def _part(where: str, part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "audio":
        _check_keys(where, part, {"type"})
        return None
    if kind == "text" and isinstance(part.get("text"), str):
        _check_keys(where, part, {"type", "text"})
        return _text(f"{where}.text", part["text"])
    raise _bad(where, "is no part that is understood", 'use {"type": "text", "text": ...} or {"type": "audio"}')


def _text(where: str, text: str) -> str:
    return whole_characters(f"messages{where}", text)


def whole_characters(field: str, text: str) -> str:
    """The text itself. JSON can spell half of a surrogate pair, which is no character and has no bytes.

    Raises:
        InvalidRequest: it holds one.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(field, "holds a lone surrogate", "send whole characters") from None
    return text


def _bad(where: str, problem: str, remedy: str = "send a JSON list of {role, content} objects") -> InvalidRequest:
    return InvalidRequest(f"messages{where}", problem, remedy)
