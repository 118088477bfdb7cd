"""Reads the items of a batch from a folder of sound files or the lines of a JSONL manifest."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ChatError
from .request import RESERVED, Scalar
from .sound.names import is_sound

MOST_NAMED = 10  # of the files that are passed over
FIELDS = ("id", "audio", "text", "messages", "parameters")
KINDS: dict[str, tuple[type, ...]] = {  # what a request cannot be made of; the rest is looked at when it is sent
    "id": (str, int, float),
    "audio": (str,),
    "messages": (str, list),
    "parameters": (dict,),
}
LONGEST_NAME = 240  # bytes, so that a suffix still fits into the 255 of a file name


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a batch. `id` names its result files."""

    id: str
    audio: Path | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | str | None = None
    parameters: Mapping[str, Scalar | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _is_file_name(self.id):
            raise ValueError(f"id: {self.id!r:.80} is no file name of at most {LONGEST_NAME} bytes")
        if self.audio is None and self.text is None and self.messages is None:
            raise ValueError(f"{self.id}: has no audio, no text and no messages")

    def request_parameters(self, common: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """Its own parameters over those of all items; None goes back to the server's default.

        Raises:
            ChatError: a name is no request parameter.
        """
        for name in self.parameters:
            if name in RESERVED:
                raise ChatError("INVALID_ARG", name, "is no request parameter; leave it out of parameters")
        merged = {**common, **self.parameters}
        return {name: value for name, value in merged.items() if value is not None}

    def digest(self, parameters: Mapping[str, Scalar]) -> str:
        """Says which request an answer belongs to: a hash of all that is sent."""
        sent = [self.text, self.messages, parameters, None if self.audio is None else _hash(self.audio)]
        return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()


def read_items(source: Path, results: Path) -> list[Item]:
    """All items in order.

    Args:
        results: folder of the answers; what lies below it is no question.

    Raises:
        ChatError: there is no such folder or manifest, it is empty, a line is wrong, an id comes twice, or an answer
            would replace a question.
    """
    if source.is_dir():
        items = _folder(source, results)
    elif source.is_file():
        items = _manifest(source)
    else:
        raise ChatError("NOT_FOUND", "batch", f"{source} is neither a folder nor a JSONL manifest")
    if not items:
        over = _passed(passed_over(source, results))
        raise ChatError("INVALID_ARG", "batch", f"{source} holds nothing to ask (sound files or JSON lines){over}")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ChatError("INVALID_ARG", "batch", f"id {item.id!r} comes twice in {source}; ids name result files")
        seen.add(item.id)
    return items


def _folder(folder: Path, results: Path) -> list[Item]:
    try:
        # A file of a subfolder keeps the way to it in its name.
        return [
            Item("__".join(path.relative_to(folder).with_suffix("").parts), path)
            for path in _files(folder, results)
            if is_sound(path)
        ]
    except ValueError as error:
        raise ChatError("INVALID_ARG", "batch", f"{folder}: {error}; rename the file") from None


def passed_over(source: Path, results: Path) -> list[Path]:
    """Files of a folder that are not asked, because nothing here can read them as sound."""
    return [path for path in _files(source, results) if not is_sound(path)] if source.is_dir() else []


def _passed(paths: Sequence[Path]) -> str:
    return f"; {summary_of(paths)}" if paths else ""


def summary_of(paths: Sequence[Path]) -> str:
    """How many files were passed over, and which."""
    names = ", ".join(str(path.name) for path in paths[:MOST_NAMED])
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{len(paths)} passed over, as no sound that can be read here: {names}{more}"


def _files(folder: Path, results: Path) -> Iterator[Path]:
    """All that may be a question, in order; neither hidden files nor results."""
    top, skipped = folder.resolve(), results.resolve()
    if top == skipped:
        raise ChatError("INVALID_ARG", "output-dir", f"{results} holds the questions; give another folder")
    within = skipped.is_relative_to(top)
    for path in sorted(folder.rglob("*")):
        way = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in way.parts)
        # A link that leads nowhere, or to a folder, is named; what is no file otherwise holds no question.
        if (
            not hidden
            and (path.is_file() or path.is_symlink())
            and not (within and (top / way).is_relative_to(skipped))
        ):
            yield path


def _manifest(path: Path) -> list[Item]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # splitlines() would cut inside JSON strings, at U+2028
    except (OSError, ValueError) as error:
        remedy = "give a folder of sound files or a JSONL manifest"
        raise ChatError("INVALID_ARG", "batch", f"{path} cannot be read as text ({error}); {remedy}") from error
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            items.append(_item(json.loads(line), path.parent, number))
        except (ValueError, TypeError, RecursionError) as error:
            raise ChatError("INVALID_ARG", "batch", f"{path.name}, line {number}: {error}; mend the line") from error
    return items


def _item(values: Any, folder: Path, number: int) -> Item:
    if not isinstance(values, dict):
        raise ValueError(f"is no JSON object but {type(values).__name__}")
    unknown = sorted(values.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(FIELDS)}")
    given = {name: value for name, value in values.items() if value is not None}
    for name, kinds in KINDS.items():
        if name in given and not isinstance(given[name], kinds):
            raise ValueError(f"{name} has type {type(given[name]).__name__}, which is none that it can have")
    messages = given.get("messages")
    return Item(
        id=str(given.get("id", f"{number:06d}")),
        audio=folder / given["audio"] if "audio" in given else None,
        text=given.get("text"),
        messages=tuple(messages) if isinstance(messages, list) else messages,
        parameters=given.get("parameters", {}),
    )


def _is_file_name(text: str) -> bool:
    try:
        size = len(os.fsencode(text))
    except UnicodeEncodeError:
        return False
    return size <= LONGEST_NAME and Path(text).name == text and not text.startswith(".") and "\0" not in text


def _hash(path: Path) -> str | None:
    """Of a file's content; None when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None
