"""What a batch consists of: sound files of a folder, or the lines of a JSONL manifest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ChatError
from client.request import Scalar

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg")
FIELDS = ("id", "audio", "text", "messages", "parameters")


@dataclass(frozen=True, slots=True)
class Item:
    """One request of a batch. `id` names its result files; `line` says where it comes from."""

    id: str
    audio: Path | None = None
    text: str | None = None
    messages: tuple[Mapping[str, Any], ...] | None = None
    parameters: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id or Path(self.id).name != self.id or self.id.startswith("."):
            raise ValueError(f"id: {self.id!r} is no file name")
        if self.audio is None and self.text is None and self.messages is None:
            raise ValueError(f"{self.id}: has no audio, no text and no messages")


def read_items(source: Path) -> list[Item]:
    """All items in order.

    Raises:
        ChatError: there is no such folder or manifest, it is empty, a line is wrong or an id comes twice.
    """
    if source.is_dir():
        items = _folder(source)
    elif source.is_file():
        items = _manifest(source)
    else:
        raise ChatError("NOT_FOUND", "batch", f"{source} is neither a folder nor a JSONL manifest")
    if not items:
        raise ChatError("INVALID_ARG", "batch", f"{source} holds nothing to ask ({', '.join(SUFFIXES)} or JSON lines)")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise ChatError("INVALID_ARG", "batch", f"id {item.id!r} comes twice in {source}; ids name result files")
        seen.add(item.id)
    return items


def _folder(folder: Path) -> list[Item]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    # A file of a subfolder keeps the way to it in its name.
    return [Item("__".join(path.relative_to(folder).with_suffix("").parts), path) for path in paths]


def _manifest(path: Path) -> list[Item]:
    items = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            items.append(_item(json.loads(line), path.parent, number))
        except (ValueError, TypeError) as error:
            raise ChatError("INVALID_ARG", "batch", f"{path.name}, line {number}: {error}") from error
    return items


def _item(values: Any, folder: Path, number: int) -> Item:
    if not isinstance(values, dict):
        raise ValueError(f"is no JSON object but {type(values).__name__}")
    unknown = sorted(values.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(FIELDS)}")
    messages = values.get("messages")
    return Item(
        id=str(values.get("id", f"{number:06d}")),
        audio=folder / values["audio"] if "audio" in values else None,
        text=values.get("text"),
        messages=None if messages is None else tuple(messages),
        parameters=dict(values.get("parameters", {})),
    )
