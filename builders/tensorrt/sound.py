"""What target ``tensorrt`` needs beside its language engines: encoder and token2wav as plans, and their memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from builders.settings import Settings
from builders.sound_sizes import sizes_of
from builders.steps import Builder
from builders.tensorrt.capacity import GIB, ONE_GPU, TOKEN2WAV_APART, USABLE, Reserve
from builders.tensorrt.plans import PlanSpec, plan_step
from builders.tensorrt.toolchain import Toolchain
from runtime.checkpoint.features import FeatureConfig
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.encoder_stage import encoder_profile
from runtime.frontend.options import EncoderOptions
from runtime.graphs.plan import PLAN_SUFFIX
from runtime.options import Options
from runtime.token2wav.build import plan_profiles
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.cache import block_bytes, stream_bytes
from runtime.token2wav.layout import Sizes
from runtime.token2wav.options import TOKEN2WAV_FOLDER, Token2WavOptions

PRECISION = "float16"  # of the flow's products and caches; its norms, softmax and residuals are float32
MAX_BATCH = 16  # chunks of one call: beyond about 40 mel frames a call is bound by arithmetic
ENDING_STREAMS = 8  # with state beside the speaking ones: their last call, or their release, is under way
WINDOW_SHARED, WINDOW_APART = 3, 8  # blocks of 1 s; caches are what limits the number of streams


def sound_options(speaking: int, is_apart: bool) -> Token2WavOptions:
    """Of token2wav on a GPU, for so many streams of the language side: less left context where it shares the GPU."""
    return Token2WavOptions(
        max_streams=speaking + ENDING_STREAMS,
        window=WINDOW_APART if is_apart else WINDOW_SHARED,
        max_batch=MAX_BATCH,
        precision=PRECISION,
    )


def sound_capacity(options: Options) -> str:
    """What streams hold, in words; the graphs must have been exported."""
    sound, sizes = options.token2wav, Sizes.read(options.path(options.token2wav.dir))
    stream = stream_bytes(sizes) + sound.window * block_bytes(sizes, np.dtype(sound.precision))
    return (
        f"token2wav: a stream holds up to {stream / 1e6:.1f} MB ({sound.window} blocks of context), "
        f"{sound.max_streams} streams {sound.max_streams * stream / 1e6:.0f} MB"
    )


@dataclass(frozen=True, slots=True)
class SoundBuild:
    """Sizes and options of token2wav, known before anything is built."""

    out: Path
    sizes: Sizes
    options: Token2WavOptions
    is_apart: bool
    speaking: int  # streams of the language engines

    @classmethod
    def plan(
        cls, out: Path, cosyvoice: Path, speaking: int, machine: Toolchain, is_apart: bool, settings: Settings
    ) -> SoundBuild:
        """``speaking``: streams of the language engines.

        Raises:
            BuildError: a GPU of its own is too small for the caches of all streams.
        """
        options = settings.apply("token2wav", sound_options(speaking, is_apart))
        build = cls(out, sizes_of(Token2WavConfig.read(cosyvoice), ()), options, is_apart, speaking)
        needed, usable = build.cache_bytes + ONE_GPU.fixed - TOKEN2WAV_APART.fixed, USABLE * machine.gpu_bytes
        if is_apart and needed > usable:
            problem = f"token2wav needs {needed / GIB:.1f} GiB of its own, {usable / GIB:.1f} are usable"
            raise BuildError("GPU memory", problem, "use a profile with fewer streams")
        return build

    @property
    def per_stream(self) -> int:
        """Bytes that a stream holds at most."""
        return stream_bytes(self.sizes) + self.options.window * block_bytes(
            self.sizes, np.dtype(self.options.precision)
        )

    @property
    def cache_bytes(self) -> int:
        """Of all streams."""
        return self.options.max_streams * self.per_stream

    @property
    def reserve(self) -> Reserve:
        """What the language engines must leave on their GPU."""
        if self.is_apart:
            return TOKEN2WAV_APART
        beside = self.options.max_streams - self.speaking  # with state, but without KV
        return Reserve(ONE_GPU.fixed + max(0, beside) * self.per_stream, self.per_stream)

    def capacity_line(self) -> str:
        """For the table that a build prints."""
        return (
            f"token2wav: {self.options.max_streams} streams x {self.options.window} blocks of context, "
            f"{self.per_stream / 1e6:.1f} MB each, {self.cache_bytes / GIB:.2f} GiB"
            + (" on the second GPU" if self.is_apart else "")
        )

    def compile(self, builder: Builder, encoder: EncoderOptions, features: FeatureConfig, machine: Toolchain) -> None:
        """Compiles all plans, but for those that an earlier run did."""
        for spec in self.plans(encoder, features):
            builder.run(plan_step(spec, machine.timing_cache(self.out), machine.gpu))

    def plans(self, encoder: EncoderOptions, features: FeatureConfig) -> Iterator[PlanSpec]:
        """Every plan to compile; the graphs must have been exported."""
        graph = self.out / encoder.graph
        yield PlanSpec(graph, graph.with_suffix(PLAN_SUFFIX), encoder_profile(encoder, features))
        for name, profile in plan_profiles(self.sizes, self.options).items():
            graph = self.out / TOKEN2WAV_FOLDER / name
            yield PlanSpec(graph, graph.with_suffix(PLAN_SUFFIX), profile)
