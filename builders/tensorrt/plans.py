"""ONNX graphs of the ``cpu`` target to TensorRT plans. The only calls of TensorRT's own builder are here.

One code path for TensorRT 10.14 and 11: networks are strongly typed, so the precision is what the ONNX file
says. TF32 is switched off: the pitch net decorrelates with it, and float32 islands are there for accuracy.
Runs on the GPU model that will serve, with the TensorRT that will. Not yet run on one; TensorRT-RTX compiles all
graphs through it without (`make check-tensorrt`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.steps import BuildStep
from runtime.errors import BuildError
from runtime.graphs.shapes import Profile
from runtime.graphs.tensorrt import load_tensorrt

WORKSPACE_BYTES = 4 << 30
OPTIMIZATION_LEVEL = 3  # of 5; the default, written down because the timing cache depends on it
SOURCES = ("builders/tensorrt/plans.py", "runtime/graphs/shapes.py")


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """One plan: where the graph is, where the plan goes, and the shapes that it must take."""

    onnx: Path
    out: Path
    profile: Profile

    @property
    def name(self) -> str:
        """For messages and the manifest."""
        return self.out.name


def plan_step(spec: PlanSpec, timing_cache: Path, gpu: str) -> BuildStep:
    """Skipped when graph, shapes and GPU are those of an earlier run."""
    graphs = sorted(spec.onnx.parent.glob(spec.onnx.name + "*"))
    return BuildStep(
        f"plan {spec.name}", graphs, SOURCES, (spec.profile, gpu), lambda: compile_plan(spec, timing_cache)
    )


def compile_plan(spec: PlanSpec, timing_cache: Path) -> list[Path]:
    """Compiles one graph; returns the plan's path.

    Raises:
        BuildError: TensorRT is missing, cannot parse the graph, or finds no plan for it.
    """
    trt = load_tensorrt()
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(spec.onnx)):  # by path: weights may lie beside it
        problems = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BuildError(spec.onnx.name, f"TensorRT cannot parse it: {problems}", "report this with the versions")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # so that a plan can say what it is made of
    _add_profile(spec, builder, config)
    measured = timing_cache.read_bytes() if timing_cache.exists() else b""
    if not config.set_timing_cache(config.create_timing_cache(measured), False):
        raise BuildError(str(timing_cache), "is of another GPU or TensorRT", "remove it")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(spec.name, "TensorRT found no plan", "see its messages above; is the GPU's memory free?")
    spec.out.parent.mkdir(parents=True, exist_ok=True)
    _replace(spec.out, bytes(plan))
    timing_cache.parent.mkdir(parents=True, exist_ok=True)
    _replace(timing_cache, bytes(config.get_timing_cache().serialize()))
    return [spec.out]


def _add_profile(spec: PlanSpec, builder: Any, config: Any) -> None:
    profile = builder.create_optimization_profile()
    for name, range_ in spec.profile.items():
        profile.set_shape(name, range_.low, range_.usual, range_.high)
    if config.add_optimization_profile(profile) < 0:
        ranges = "; ".join(f"{n} {list(r.low)} to {list(r.high)}" for n, r in spec.profile.items())
        raise BuildError(spec.name, f"TensorRT refuses its profile: {ranges}", "see its messages above")


def _replace(path: Path, content: bytes) -> None:
    """Whole or not at all: an interrupted build must not leave half a file."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(content)
    temporary.replace(path)
