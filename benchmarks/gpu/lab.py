"""The models that are measured, each built when a part first needs it."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Callable
from functools import cached_property
from typing import Generic, TypeVar

import torch

from benchmarks.gpu.checks import explained
from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.ledger import say
from benchmarks.gpu.measure import Clock
from benchmarks.gpu.sound import SoundBench, sound_executor, streams_that_fit
from benchmarks.gpu.sound_child import SoundChild
from builders.released import BenchSizes
from runtime.graphs.device import ops_for
from runtime.graphs.executor import executor_for

Made = TypeVar("Made")
LEAST_SOUND_STREAMS = 8  # of the rows of chunks


class Once(Generic[Made]):
    """Something that is made when first asked for. A failure stands: another try would only take its time."""

    def __init__(self, name: str, make: Callable[[], Made]) -> None:
        self._name, self._make = name, make
        self._made: list[Made] = []
        self._problem = ""

    def get(self) -> Made:
        """The same every time.

        Raises:
            RuntimeError: it could not be made before.
            Exception: whatever making it raises, the first time.
        """
        if self._problem:
            raise RuntimeError(f"{self._name}: could not be built ({self._problem})")
        if not self._made:
            try:
                self._made.append(self._make())
            except Exception as error:
                self._problem = explained(error)
                raise
        return self._made[0]

    @property
    def made(self) -> bool:
        """Whether it is there."""
        return bool(self._made)


class Lab:
    """Device, clock and both sides. ``given``: the command line."""

    def __init__(self, given: argparse.Namespace, sizes: BenchSizes) -> None:
        self.given, self.sizes, self.device = given, sizes, torch.device(given.device)
        self.on_gpu = self.device.type == "cuda"
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32
        self.clock = Clock(self.device, sizes.runs)
        self._language = Once("language", self._make_language)
        self._sound = Once("sound", self._make_sound)

    @property
    def language(self) -> LanguageBench:
        """Backbone and speech head, everything recorded."""
        return self._language.get()

    @property
    def sound(self) -> SoundBench:
        """Encoder, flow and vocoder, everything recorded."""
        return self._sound.get()

    @cached_property
    def sound_streams(self) -> int:
        """As many streams as there is memory for beside the language side."""
        most = max(LEAST_SOUND_STREAMS, *self.sizes.sustained)
        self.free()
        return streams_that_fit(self.sizes, most, self.given.window, self._precision, self.device)

    def sound_child(self) -> SoundChild:
        """Flow and vocoder in a process of their own, everything recorded. The caller closes it."""
        self._language.get()  # first: what it leaves of the memory decides how many streams fit
        streams = self.sound_streams
        say(f"sound in a process of its own: weights and recordings for {streams} streams")
        return SoundChild(self.sizes.name, self.given.device, streams, self.given.window, self._precision)

    def tidy(self) -> None:
        """Between parts: nothing that one has left is in the way of the next."""
        if self._language.made:
            self._language.get().clear()
        self.free()

    def free(self) -> None:
        """Gives back memory that torch keeps without using it."""
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    @property
    def _precision(self) -> str:
        return "float16" if self.on_gpu else "float32"

    def _make_language(self) -> LanguageBench:
        say("language: weights and recordings")
        given = self.given
        executor, ops = executor_for(self.device), ops_for(self.device)
        made = LanguageBench(self.sizes, executor, ops, self.dtype, given.linear, given.fused)
        made.loop()
        return made

    def _make_sound(self) -> SoundBench:
        language, streams = self.language, self.sound_streams
        say(f"sound: weights and recordings for {streams} streams")
        executor = sound_executor(self.device)
        made = SoundBench(self.sizes, language, executor, streams, self.given.window, self._precision)
        made.prepare()
        return made
