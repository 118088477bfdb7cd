"""Where chunks go while the answer is still being made: the screen, the loudspeaker, a folder."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, TextIO

from client.audio_file import write_wav
from client.chunks import OUTPUT_RATE, Chunk
from client.errors import ChatError


class Sink(Protocol):
    """Takes chunks as they arrive."""

    def put(self, chunk: Chunk) -> None:
        """Takes one chunk."""

    def close(self, complete: bool) -> None:
        """The answer ended, completely or not."""


class TextSink:
    """Prints text at once."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._open_line = out, False

    def put(self, chunk: Chunk) -> None:
        """Prints the new text."""
        if chunk.text:
            print(chunk.text, end="", flush=True, file=self._out)
            self._open_line = not chunk.text.endswith("\n")

    def close(self, complete: bool) -> None:
        """Ends the line."""
        if self._open_line:
            print(file=self._out, flush=True)


class ChunkFolder:
    """Writes the sound of every chunk into a file of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, 0

    def put(self, chunk: Chunk) -> None:
        """Writes `chunk_000.wav` and so on."""
        if chunk.audio.size:
            write_wav(self._folder / f"chunk_{self._count:03d}.wav", chunk.audio, OUTPUT_RATE)
            self._count += 1

    def close(self, complete: bool) -> None:
        """Nothing is left to do."""


class Loudspeaker:
    """Plays the sound while it arrives, through the optional package sounddevice.

    Raises:
        ChatError: the package or a sound device is missing.
    """

    def __init__(self) -> None:
        try:
            device: Any = importlib.import_module("sounddevice")
        except (ImportError, OSError) as error:  # OSError: the package is there, PortAudio is not
            remedy = "pip install sounddevice (and the system's PortAudio), or leave --play out"
            raise ChatError("NOT_FOUND", "play", f"sounddevice cannot be loaded ({error}); {remedy}") from error
        try:
            self._stream = device.OutputStream(samplerate=OUTPUT_RATE, channels=1, dtype="float32")
            self._stream.start()
        except device.PortAudioError as error:
            raise ChatError("NOT_FOUND", "play", f"no sound device ({error}); leave --play out") from error

    def put(self, chunk: Chunk) -> None:
        """Queues the new sound."""
        if chunk.audio.size:
            self._stream.write(chunk.audio[:, None])

    def close(self, complete: bool) -> None:
        """Plays what is queued, or falls silent at once."""
        if complete:
            self._stream.stop()
        else:
            self._stream.abort()
        self._stream.close()
