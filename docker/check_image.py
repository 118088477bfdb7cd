"""Does the serving image carry what this package needs? Run while the image is built, by the image's Python.

``missing FILE`` prints the requirements of FILE that are not installed at all, for pip. ``check FILE``
compares every installed version with pyproject.toml, with FILE's own needs and with the TensorRT-LLM that
the runtime is written for, and fails naming each that does not fit. Imports nothing that it checks.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
# The library whose engines are built and run here, exactly as runtime/engines/trtllm/pins.py says.
LIBRARY = "tensorrt_llm"
Version = Callable[[str], str | None]


def installed(name: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def needs_of(name: str) -> list[str]:
    """What an installed distribution says that it requires."""
    return requires(name) or []


def lines(path: Path) -> list[str]:
    """The requirements of a file, without comments."""
    stripped = (line.partition("#")[0].strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in stripped if line]


def missing(wanted: Iterable[str], version_of: Version = installed) -> list[str]:
    """Those requirements whose distribution is not installed in any version."""
    return [line for line in wanted if version_of(Requirement(line).name) is None]


def problems(wanted: Iterable[str], version_of: Version = installed) -> list[str]:
    """Every requirement that is not fulfilled, in words."""
    found = []
    for line in wanted:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        has = version_of(requirement.name)
        # NVIDIA's builds have pre-release numbers such as 2.10.0a0+git.nv25.12.
        if has is None or not requirement.specifier.contains(has, prereleases=True):
            found.append(f"{requirement.name}: needs {requirement.specifier or 'any version'}, found {has or 'none'}")
    return found


def check(project: Path, extra: Path, library: str) -> list[str]:
    """All problems of this image.

    Args:
        project: pyproject.toml.
        extra: requirements that may have been added to the image.
        library: the version of TensorRT-LLM.
    """
    wanted = list(tomllib.loads(project.read_text("utf-8"))["project"]["dependencies"])
    # Additions came without their own needs, and the image may have had them in other versions.
    added = [Requirement(line).name for line in lines(extra)]
    for name in added:
        wanted += [name, *(needs_of(name) if installed(name) else [])]
    return problems([*wanted, f"{LIBRARY}=={library}"])


def main(arguments: list[str]) -> int:
    """Exit status 1 when something does not fit."""
    command, file = arguments[0], Path(arguments[1])
    if command == "missing":
        print("\n".join(missing(lines(file))))
        return 0
    sys.path.insert(0, str(ROOT))
    from runtime.engines.trtllm.pins import TENSORRT_LLM

    found = check(ROOT / "pyproject.toml", file, TENSORRT_LLM)
    print("\n".join(found) or "the image fits", file=sys.stderr if found else sys.stdout)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
