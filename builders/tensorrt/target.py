"""The language engines of target ``tensorrt`` as build steps.

Four steps, each of which is skipped when an earlier run finished it: both conversions, then both
compilations. Plans of the small models: ``sound``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from builders.steps import BuildStep
from builders.tensorrt.capacity import Capacity, Reserve, checkpoint_bytes, divide_memory, engine_bytes
from builders.tensorrt.compile import compile_engine
from builders.tensorrt.convert import WEIGHTS_FILE, convert
from builders.tensorrt.convert_plan import CheckpointPlan, backbone_plan, speech_plan
from builders.tensorrt.precision import Precision
from builders.tensorrt.preflight import Needs
from builders.tensorrt.profiles import Profile
from builders.tensorrt.toolchain import Toolchain
from runtime.checkpoint.weights import weight_files
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.files import ENGINE_FILE, ENGINES, check_config
from runtime.engines.trtllm.spec import EngineProfile
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.profiles import backbone_profile, speech_profile

CHECKPOINTS = "checkpoints"
CONVERTER = (
    "builders/tensorrt/convert.py",
    "builders/tensorrt/convert_config.py",
    "builders/tensorrt/convert_plan.py",
    "builders/tensorrt/precision.py",
    "builders/tensorrt/tensor_file.py",
)
COMPILER = (
    *CONVERTER,
    "builders/tensorrt/compile.py",
    "builders/tensorrt/fac_engine.py",
    "runtime/engines/sizes.py",
    "runtime/families/fun_audio_chat/profiles.py",
    "runtime/engines/trtllm/spec.py",
)


@dataclass(frozen=True, slots=True)
class LanguageBuild:
    """What is known before the first step: sizes of both engines and where their files go."""

    out: Path
    config: ModelConfig
    profile: Profile
    machine: Toolchain
    capacity: Capacity

    @classmethod
    def plan(
        cls, out: Path, config: ModelConfig, profile: Profile, machine: Toolchain, reserve: Reserve
    ) -> LanguageBuild:
        """Raises BuildError when the GPU's memory or the checkpoint is too small for the profile."""
        build = cls(out, config, profile, machine, divide_memory(config, profile, reserve, machine.gpu_bytes))
        build.engines()
        return build

    @property
    def precision(self) -> Precision:
        """Of both engines."""
        return Precision.named(self.profile.precision)

    @property
    def options(self) -> EngineOptions:
        """What the runtime must be told; the engines are compiled for exactly this."""
        profile = self.profile
        return EngineOptions(
            max_streams=profile.max_streams,
            max_positions=profile.max_positions,
            kv_positions=self.capacity.positions,
            prefill_chunk=profile.prefill_chunk,
            tokens_per_block=profile.tokens_per_block,
            dtype=self.precision.dtype,
        )

    def engines(self) -> tuple[tuple[CheckpointPlan, EngineProfile], ...]:
        """Backbone, then speech head. Raises BuildError."""
        options = self.options
        return (
            (backbone_plan(self.config), backbone_profile(self.config, options)),
            (speech_plan(self.config), speech_profile(self.config, options)),
        )

    def needs(self) -> Needs:
        """Room for checkpoints and engines."""
        files: dict[Path, int] = {}
        for plan, _ in self.engines():
            files[self._checkpoint(plan) / WEIGHTS_FILE] = checkpoint_bytes(plan, self.precision)
            files[self._engine(plan) / ENGINE_FILE] = engine_bytes(plan, self.precision)
        return Needs(files, max(files.values()))

    def steps(self) -> list[BuildStep]:
        """Conversions first: they need no GPU and their errors come soonest."""
        conversions = [self._conversion(plan, profile) for plan, profile in self.engines()]
        return conversions + [self._compilation(plan, profile) for plan, profile in self.engines()]

    def _conversion(self, plan: CheckpointPlan, profile: EngineProfile) -> BuildStep:
        positions = profile.shape.max_seq_len
        source, target = self.config.directory, self._checkpoint(plan)
        return BuildStep(
            f"{plan.name} checkpoint",
            self._inputs(),
            CONVERTER,
            (self.profile.precision, positions),
            lambda: convert(source, plan, self.precision, positions, target),
        )

    def _compilation(self, plan: CheckpointPlan, profile: EngineProfile) -> BuildStep:
        # Its inputs are those of the conversion: what lies between is inside this folder, which may be moved.
        settings = (self.profile.precision, profile, self.machine.gpu)
        return BuildStep(
            f"{plan.name} engine", self._inputs(), COMPILER, settings, lambda: self._compile(plan, profile)
        )

    def _compile(self, plan: CheckpointPlan, profile: EngineProfile) -> list[Path]:
        engine, times = self._engine(plan), self.machine.timing_cache(self.out)
        files = compile_engine(self._checkpoint(plan), profile, self.precision, engine, times)
        # The library lowers sizes that it finds too large with no more than a warning.
        check_config(plan.name, engine, profile)
        return files

    def _inputs(self) -> list[Path]:
        return [self.config.directory / "config.json", *weight_files(self.config.directory)]

    def _checkpoint(self, plan: CheckpointPlan) -> Path:
        return self.out / CHECKPOINTS / plan.name

    def _engine(self, plan: CheckpointPlan) -> Path:
        return self.out / ENGINES / plan.name
