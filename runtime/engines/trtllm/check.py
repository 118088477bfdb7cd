"""Does a loaded engine take exactly what the runtime fills? Asked once, before the first step.

Plain data: the facts of an engine come from ``graphs.tensorrt``, the declaration from ``spec``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime.engines.trtllm.spec import DYNAMIC, EngineProfile, TensorSpec
from runtime.errors import BuildError
from runtime.graphs.tensorrt import INPUT, OUTPUT, TensorFacts


class EngineMismatch(BuildError):
    """A compiled engine is not the one that this program drives."""


def check_tensors(engine: str, profile: EngineProfile, facts: Sequence[TensorFacts]) -> None:
    """Compares an engine with its declaration.

    Raises:
        EngineMismatch: naming every tensor that differs, as the engine has it and as the runtime fills it.
    """
    found = find_problems(profile, facts)
    if found:
        raise EngineMismatch(engine, "; ".join(found), "build it again with this version: make build-engines")


def find_problems(profile: EngineProfile, facts: Sequence[TensorFacts]) -> list[str]:
    """Every difference in words; empty when the engine fits."""
    declared = {spec.name: (INPUT, spec) for spec in profile.inputs}
    declared |= {spec.name: (OUTPUT, spec) for spec in profile.outputs}
    reported = {fact.name: fact for fact in facts}
    problems = [f"the engine has no {mode} {declared[name][1]}" for name, mode in _missing(declared, reported)]
    for fact in facts:
        if fact.name not in declared:
            problems.append(f"the engine has {fact}, which the runtime does not know")
            continue
        mode, spec = declared[fact.name]
        wrong = [fact.mode != mode, fact.dtype != spec.dtype, not _shape_fits(fact, spec)]
        if any(wrong):
            what = [word for word, bad in zip(("mode", "dtype", "shape"), wrong, strict=True) if bad]
            problems.append(f"{' and '.join(what)} of {fact.name}: the engine has {fact}, the runtime {mode} {spec}")
    return problems


def _missing(declared: dict[str, tuple[str, TensorSpec]], reported: Iterable[str]) -> list[tuple[str, str]]:
    return [(name, mode) for name, (mode, _) in declared.items() if name not in reported]


def _shape_fits(fact: TensorFacts, spec: TensorSpec) -> bool:
    """Whether every shape that the runtime may bind is one that the engine was compiled for."""
    if len(fact.shape) != len(spec.dims):
        return False
    # An engine may report a fixed axis as dynamic, but then its profile must pin the size.
    named = all(
        size == DYNAMIC or (dim.is_static and size == dim.minimum)
        for size, dim in zip(fact.shape, spec.dims, strict=True)
    )
    if not named:
        return False
    if fact.ranges is None:
        return all(size != DYNAMIC or not dim.is_static for size, dim in zip(fact.shape, spec.dims, strict=True))
    smallest, _, largest = fact.ranges
    wanted_smallest, _, wanted_largest = spec.ranges
    return all(a <= b for a, b in zip(smallest, wanted_smallest, strict=True)) and all(
        a >= b for a, b in zip(largest, wanted_largest, strict=True)
    )
