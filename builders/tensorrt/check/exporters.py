"""Another version's ONNX exporter in the place of the installed torch's: ``torch/onnx`` is Python alone."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

PACKAGE = "torch.onnx"


class LaidOver(MetaPathFinder):
    """Finds the package in ``folder``, and so all that lies inside it."""

    def __init__(self, folder: Path) -> None:
        self._package = folder.joinpath(*PACKAGE.split("."))

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE:
            return None
        return spec_from_file_location(
            fullname, self._package / "__init__.py", submodule_search_locations=[str(self._package)]
        )


def lay_over(folder: Path) -> None:
    """Before torch is imported. ``folder`` holds ``torch/onnx``."""
    assert "torch" not in sys.modules
    sys.meta_path.insert(0, LaidOver(folder))
