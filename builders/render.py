"""The rendered model repository: a copy that the server may be pointed at."""

from __future__ import annotations

import shutil
from pathlib import Path

from builders.placement import CPU_ONLY, Placement
from runtime.errors import BuildError
from runtime.manifest import PACKAGE_ROOT, REPOSITORY

CONFIG_FILE = "config.pbtxt"


def render_repository(folder: Path, placement: Placement = CPU_ONLY) -> list[Path]:
    """Copies ``model_repository/`` into ``folder``, places its models and returns the files.

    Raises:
        BuildError: the placement names a model that is not there or has no instances.
    """
    target = folder / REPOSITORY
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PACKAGE_ROOT / REPOSITORY, target, ignore=shutil.ignore_patterns("__pycache__"))
    for ensemble in target.iterdir():
        (ensemble / "1").mkdir(exist_ok=True)  # Triton wants a version folder of an ensemble too
    for model in placement.gpus:
        place(target / model / CONFIG_FILE, model, placement)
    return sorted(path for path in target.rglob("*") if path.is_file())


def place(path: Path, model: str, placement: Placement) -> None:
    """Puts the placement's instance group in place of the one that every model is committed with."""
    committed = CPU_ONLY.instance_group(model)
    text = path.read_text("utf-8") if path.is_file() else ""
    if text.count(committed) != 1:
        raise BuildError(f"{model}/{CONFIG_FILE}", f"does not hold {committed!r} exactly once", "name another model")
    path.write_text(text.replace(committed, placement.instance_group(model)), "utf-8")
