"""The attention plugin of TensorRT-LLM, loaded without importing its Python package.

The import would start MPI and load far more than the plugin (more than ten seconds, by others' reports).
Not yet run: where it fails, ``import tensorrt_llm`` before the first engine does the same.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runtime.errors import BuildError

PACKAGE = "tensorrt_llm"
LIBRARY = Path("libs") / "libnvinfer_plugin_tensorrt_llm.so"
NAMESPACE = b"tensorrt_llm"
REMEDY = "run this inside the container: see compose.yaml"


def plugin_library() -> Path:
    """The plugin's shared library inside the installed package. Raises BuildError."""
    package = importlib.util.find_spec(PACKAGE)  # finds a top-level package without importing it
    for folder in (package.submodule_search_locations or []) if package else []:
        if (Path(folder) / LIBRARY).is_file():
            return Path(folder) / LIBRARY
    raise BuildError(PACKAGE, f"{LIBRARY.name} is not installed", REMEDY)


def load_plugins(library: Path, load: Callable[..., Any] = ctypes.CDLL) -> None:
    """Registers the plugins. Must run before an engine is loaded; a second time does no harm.

    Args:
        library: see ``plugin_library``.
        load: opens a shared library.

    Raises:
        BuildError: the library cannot be loaded or refuses to register its plugins.
    """
    try:
        # Global, because the library's own dependencies look each other's symbols up.
        handle = load(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise BuildError(library.name, f"cannot be loaded ({error})", REMEDY) from None
    register = handle.initTrtLlmPlugins
    register.argtypes, register.restype = [ctypes.c_void_p, ctypes.c_char_p], ctypes.c_bool
    if not register(None, NAMESPACE):
        raise BuildError(library.name, "did not register its plugins", "see the log of TensorRT")
