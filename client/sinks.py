"""Takes chunks while the answer is still being made, to the screen, the loudspeaker or a folder."""

from __future__ import annotations

import importlib
import queue
import re
import threading
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from .audio_file import write_wav
from .chunks import OUTPUT_RATE, Chunk
from .errors import ChatError
from .screen import Screen

CHUNK_FILE = re.compile(r"chunk_(\d{3,})\.wav")
PIECE = OUTPUT_RATE // 10  # samples that the loudspeaker takes at once: so soon it falls silent


class Sink(Protocol):
    """Takes chunks as they arrive."""

    def put(self, chunk: Chunk) -> None:
        """Takes one chunk."""

    def close(self, complete: bool) -> None:
        """The answer ended, completely or not."""


class TextSink:
    """Prints text at once."""

    def __init__(self, out: TextIO | Screen) -> None:
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
        """Removes what an earlier, longer answer left; all stays when this one never began."""
        for path in self._folder.iterdir() if complete or self._count else ():
            name = CHUNK_FILE.fullmatch(path.name)
            if name and int(name[1]) >= self._count:
                path.unlink()


class Loudspeaker:
    """Plays the sound in a thread of its own while more arrives, through the optional package sounddevice.

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
        self._queue: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._silent = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._play, daemon=True)
        self._thread.start()

    def put(self, chunk: Chunk) -> None:
        """Queues the new sound."""
        if chunk.audio.size:
            self._queue.put(chunk.audio)

    def close(self, complete: bool) -> None:
        """Plays what is queued, or falls silent at once, as it does at Ctrl-C.

        Raises:
            ChatError: the device failed, and the answer is complete.
        """
        self._queue.put(None)
        if not complete:
            self._silent.set()
        try:
            self._thread.join()
        except KeyboardInterrupt:  # the answer is there: this ends its sound only
            self._silent.set()
            self._thread.join()
        if self._silent.is_set():
            self._stream.abort()
        else:
            self._stream.stop()
        self._stream.close()
        if complete and self._failure is not None:
            raise ChatError("INTERNAL", "play", f"the sound device failed ({self._failure}); leave --play out")

    def _play(self) -> None:
        while (samples := self._queue.get()) is not None:
            for start in range(0, samples.size, PIECE):
                if self._silent.is_set():
                    return
                try:
                    self._stream.write(samples[start : start + PIECE, None])
                except Exception as error:  # of the optional package
                    self._failure = error
                    return
