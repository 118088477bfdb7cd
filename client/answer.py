"""Collects the chunks of an answer, times the first ones, writes the three files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from .audio_file import write_wav
from .chunks import OUTPUT_RATE, Chunk
from .errors import ChatError

FILE_STEM = "request_0"


@dataclass(slots=True)
class Answer:
    """All chunks of one request so far.

    Args:
        clock: seconds; the request is taken to be sent when the answer is made.
    """

    clock: Callable[[], float] = time.perf_counter
    chunks: list[Chunk] = field(default_factory=list)
    first_text_s: float | None = None
    first_audio_s: float | None = None
    total_s: float | None = None
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.clock()

    def add(self, chunk: Chunk) -> None:
        """Takes the next chunk."""
        self.total_s = self.clock() - self.began
        if chunk.text and self.first_text_s is None:
            self.first_text_s = self.total_s
        if chunk.audio.size and self.first_audio_s is None:
            self.first_audio_s = self.total_s
        self.chunks.append(chunk)

    def extend(self, chunks: Iterable[Chunk]) -> Self:
        """Takes all chunks of a stream as they come; returns itself."""
        for chunk in chunks:
            self.add(chunk)
        return self

    @property
    def finish_reason(self) -> str:
        """`stop` or `length`; empty while the answer is not complete."""
        return next((chunk.finish_reason for chunk in reversed(self.chunks) if chunk.finish_reason), "")

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def audio(self) -> np.ndarray:
        """The whole sound. # [samples]"""
        return np.concatenate([np.zeros(0, np.float32), *(chunk.audio for chunk in self.chunks)])

    def timings(self) -> dict[str, float | None]:
        """Seconds from the request to the first text, the first sound and the end; length of the sound."""
        return {
            "first_text_s": self.first_text_s,
            "first_audio_s": self.first_audio_s,
            "total_s": self.total_s,
            "audio_s": self.audio.size / OUTPUT_RATE,
        }

    def document(self, parameters: Mapping[str, Any], with_stats: bool) -> dict[str, Any]:
        """What goes into the JSON file."""
        made: dict[str, Any] = {
            "text": self.text,
            "text_token_ids": _joined([chunk.text_token_ids for chunk in self.chunks]),
            "speech_token_ids": _joined([chunk.speech_token_ids for chunk in self.chunks]),
            "finish_reason": self.finish_reason,
            "timings": self.timings(),
            "parameters": dict(parameters),
        }
        if with_stats:
            made["stats"] = next((chunk.stats for chunk in reversed(self.chunks) if chunk.stats is not None), None)
        return made

    def write(
        self,
        folder: Path,
        parameters: Mapping[str, Any],
        with_audio: bool,
        with_stats: bool,
        stem: str = FILE_STEM,
    ) -> list[Path]:
        """Writes text, on request the sound, and last the JSON, which so says that all is there; returns the paths.

        Of an earlier answer in these files nothing stays.
        """
        folder.mkdir(parents=True, exist_ok=True)
        text, sound, document = (folder / f"{stem}{suffix}" for suffix in (".txt", ".wav", ".json"))
        document.unlink(missing_ok=True)
        text.write_text(self.text, "utf-8")
        if with_audio:
            write_wav(sound, self.audio, OUTPUT_RATE)
        else:
            sound.unlink(missing_ok=True)
        unfinished = document.with_suffix(".json.new")
        unfinished.write_text(_lines(self.document(parameters, with_stats)), "utf-8", errors="backslashreplace")
        unfinished.replace(document)
        return [text, sound, document] if with_audio else [text, document]


def check_overwrites(questions: Iterable[Path | None], folder: Path, stems: Iterable[str]) -> None:
    """Checks that no answer would replace sound that is asked about.

    Raises:
        ChatError: one would.
    """
    replaced = {_file_of(folder / f"{stem}.wav") for stem in stems} - {None}
    for question in questions:
        if question is not None and _file_of(question) in replaced:
            message = f"{question} is a question and its file would hold an answer; give another folder"
            raise ChatError("INVALID_ARG", "output-dir", message)


def _file_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _joined(pieces: list[np.ndarray]) -> list[int]:
    return [int(value) for piece in pieces for value in piece]


def _lines(document: Mapping[str, Any]) -> str:
    """JSON with one line per key: an indented list of ids would have one line per id."""
    rows = (f"  {json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in document.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"
