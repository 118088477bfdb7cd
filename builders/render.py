"""The rendered model repository: a copy that the server may be pointed at."""

from __future__ import annotations

import shutil
from pathlib import Path

from runtime.manifest import PACKAGE_ROOT, REPOSITORY


def render_repository(folder: Path) -> list[Path]:
    """Copies ``model_repository/`` into ``folder`` and returns the files."""
    target = folder / REPOSITORY
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(PACKAGE_ROOT / REPOSITORY, target, ignore=shutil.ignore_patterns("__pycache__"))
    for ensemble in target.iterdir():
        (ensemble / "1").mkdir(exist_ok=True)  # Triton wants a version folder of an ensemble too
    return sorted(path for path in target.rglob("*") if path.is_file())
