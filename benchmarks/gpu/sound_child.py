"""Flow and vocoder in a process of their own, with a context of their own on the GPU: as behind a server."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.gpu.sound import SoundBench, sound_executor
from builders.released import full, tiny
from runtime.contracts import ChunkFlag
from runtime.errors import EngineFault
from runtime.graphs.executor import exact_sums

START_S, CALL_S, END_S = 120.0, 20.0, 5.0
Row = tuple[int, ChunkFlag, Sequence[int]]


def _serve(pipe: Connection, size: str, device: str, streams: int, window: int, precision: str) -> None:
    """The other process: rows come, seconds of sound go back, or the text of an error."""
    exact_sums()
    sizes = full() if size == "full" else tiny()
    made = SoundBench(sizes, None, sound_executor(torch.device(device)), streams, window, precision)
    made.prepare()
    pipe.send([])
    while (rows := pipe.recv()) is not None:
        try:
            pipe.send(made.speak(rows)[1])
        except Exception as error:  # it is told on the other side
            pipe.send(f"{type(error).__name__}: {error}")


class SoundChild:
    """What ``answers.AnswersBeside`` asks for sound; one call at a time.

    Raises:
        EngineFault: the process ended, or did not answer in time.
    """

    def __init__(self, size: str, device: str, streams: int, window: int, precision: str) -> None:
        self.sizes = full() if size == "full" else tiny()
        context = multiprocessing.get_context("spawn")  # a fork would share the parent's context of the GPU
        self._pipe, theirs = context.Pipe()
        arguments: tuple[Any, ...] = (theirs, size, device, streams, window, precision)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._take(START_S)

    def begin(self, rows: Sequence[Row]) -> None:
        """Starts a call."""
        self._pipe.send(list(rows))

    def ready(self) -> bool:
        """Whether ``found`` returns at once."""
        return self._pipe.poll()

    def found(self) -> list[float]:
        """Seconds of sound of each row of the call that was begun."""
        return self._take(CALL_S)

    def release(self, streams: Sequence[int]) -> None:
        """Drops what is kept of streams."""
        self.begin([(stream, ChunkFlag.RELEASE, ()) for stream in streams])
        self.found()

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):  # it may be gone
            self._pipe.send(None)
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()

    def _take(self, seconds: float) -> list[float]:
        try:
            if not self._pipe.poll(seconds):
                raise EngineFault("token2wav", f"did not answer within {seconds:.0f} s", "there is no figure")
            found = self._pipe.recv()
        except (EOFError, OSError):
            raise EngineFault("token2wav", "its process ended", "see what it printed") from None
        if isinstance(found, str):
            raise EngineFault("token2wav", f"failed ({found})", "there is no figure")
        return list(found)
