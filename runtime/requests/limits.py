"""How large a request may be. Checked before anything costs time: no copy, no resampling, no tokenizer.

The frame loop shares its process with all of this: a text of 1 MB would hold all frames up for one to three seconds
in the tokenizer, only to be refused because it does not fit.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.errors import InvalidRequest
from runtime.requests.messages import Message

# What fits into a position of the prompt: Qwen's tokens hold 4 to 5 bytes of ordinary text in any language.
BYTES_PER_POSITION = 8
POSITIONS_PER_TURN = 16  # a turn takes five for the template alone
# JSON escapes double most text; the rest of an entry is its role and its brackets.
ESCAPED, ENTRY_BYTES = 2, 128
PARAMETER_BYTES = 256  # of any string parameter but system
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"?', re.S)
_NO_BRACKETS = re.compile(r"[^][{}]+")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one request, and of the requests of one key. 0 is what ``for_model`` makes of it.

    ``clip_s``, ``audio_s``: seconds of one clip and of all. ``text_bytes``: UTF-8 bytes of ``text`` and
    ``system`` together, and of all texts in ``messages``. ``turns``: entries of ``messages``.
    ``messages_bytes``, ``json_depth``: of the JSON document. ``streams_per_key``, ``streams_without_key``:
    requests at once with one API key, and of all those without; 0 is no limit.
    """

    clip_s: float = 0.0
    audio_s: float = 0.0
    clips: int = 64
    text_bytes: int = 0
    turns: int = 0
    messages_bytes: int = 0
    json_depth: int = 16
    streams_per_key: int = 0
    streams_without_key: int = 0

    def __post_init__(self) -> None:
        for name in ("clips", "json_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is below 1")
        for item in dataclasses.fields(self):
            if getattr(self, item.name) < 0:
                raise ValueError(f"{item.name}: {getattr(self, item.name)} is below 0")

    def for_model(self, max_positions: int, position_hz: float, clip_s: float) -> RequestLimits:
        """With every 0 replaced by what could fit into a prompt of so many positions.

        Args:
            position_hz: audio positions of a second of sound.
            clip_s: the extractor's longest clip.
        """
        text = self.text_bytes or BYTES_PER_POSITION * max_positions
        turns = self.turns or max(2, max_positions // POSITIONS_PER_TURN)
        return dataclasses.replace(
            self,
            clip_s=min(self.clip_s or clip_s, clip_s),
            audio_s=self.audio_s or max_positions / position_hz,
            text_bytes=text,
            turns=turns,
            messages_bytes=self.messages_bytes or ESCAPED * text + ENTRY_BYTES * turns,
        )

    def check(self, arrays: Mapping[str, np.ndarray], rate: int, system: str) -> None:
        """Sizes of tensors; what has no shape of the protocol is left to the later checks.

        Args:
            rate: samples per second of ``audio``.
            system: the system message, which shares the limit of ``text``.

        Raises:
            InvalidRequest: naming the field, its size and the limit.
        """
        audio, lengths = arrays.get("audio"), arrays.get("audio_lengths")
        if lengths is not None:
            _bound("audio_lengths", lengths.size, self.clips, "clips", "leave out early clips")
        if audio is not None and audio.size > self.audio_s * rate:
            raise InvalidRequest(
                "audio", f"lasts {audio.size / rate:.1f} s in all", f"send at most {self.audio_s:g} s in one request"
            )
        text = _bytes(arrays.get("text"))
        _bound("text", text, self.text_bytes, "bytes", "shorten the text")
        both = text + len(system.encode("utf-8", "replace"))
        _bound("text", both, self.text_bytes, "bytes together with system", "shorten one of them")
        document = arrays.get("messages")
        _bound("messages", _bytes(document), self.messages_bytes, "bytes", "leave out early turns")
        if document is not None and document.size:
            _bound("messages", depth(document.flat[0]), self.json_depth, "levels deep", "nest less")

    def check_strings(self, values: Mapping[str, Any]) -> None:
        """Sizes of typed parameters. Raises InvalidRequest."""
        for name, value in values.items():
            if isinstance(value, str):
                most = self.text_bytes if name == "system" else PARAMETER_BYTES
                _bound(name, len(value.encode("utf-8", "replace")), most, "bytes", "shorten it")

    def check_messages(self, messages: Sequence[Message]) -> None:
        """Turns and text of a parsed ``messages``.

        Raises:
            InvalidRequest: naming the size and the limit.
        """
        _bound("messages", len(messages), self.turns, "turns", "leave out early turns")
        total = sum(len(part.encode("utf-8", "replace")) for part in _texts(messages))
        _bound("messages", total, self.text_bytes, "bytes of text", "leave out early turns")


def depth(document: bytes | str) -> int:
    """Nesting of the brackets outside strings, of any text, in one pass."""
    text = document.decode("utf-8", "replace") if isinstance(document, bytes) else document
    level = deepest = 0
    for bracket in _NO_BRACKETS.sub("", _STRINGS.sub("", text)):
        level += 1 if bracket in "[{" else -1
        deepest = max(deepest, level)
    return deepest


def _bytes(array: np.ndarray | None) -> int:
    if array is None:
        return 0
    return sum(len(value if isinstance(value, bytes) else str(value).encode()) for value in array.flat)


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    return (part for message in messages for part in message.parts if part is not None)


def _bound(field: str, found: int, most: int, unit: str, remedy: str) -> None:
    if found > most:
        raise InvalidRequest(field, f"has {found} {unit}, the limit is {most}", remedy)
