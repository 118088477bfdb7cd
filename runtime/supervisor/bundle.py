"""Where tritonserver comes from: a named binary, one on PATH, the container's, or the one inside the PyPI wheel.

The wheel `nvidia-pytriton` carries a complete tritonserver with its Python backend, but its files
do not lie where tritonserver looks for them. This module lays them out once in a cache folder and
says how to call the result. Knows nothing of models, ports or processes.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.supervisor.errors import InstallError

WHEEL = "nvidia-pytriton"
LIBRARIES = "nvidia_pytriton.libs"
STUB = "triton_python_backend_stub"
STUB_PYTHON = (3, 11)  # the interpreter that this project's stub is linked to
STUB_LIBRARY = f"libpython{STUB_PYTHON[0]}.{STUB_PYTHON[1]}.so.1.0"
BINARY_VARIABLE = "TRITONSERVER"
CONTAINER_BINARY = Path("/opt/tritonserver/bin/tritonserver")  # of NVIDIA's images, also where PATH lacks it
PYTHON_BACKEND = "python"
CACHE_VARIABLE = "FUN_AUDIO_CHAT_CACHE"
SYSTEM_LIBRARIES = (Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu"), Path("/usr/lib64"))


@dataclass(frozen=True, slots=True)
class TritonInstall:
    """How to call one tritonserver.

    Args:
        command: the program and the arguments that it always needs.
        backend_directory: where the backends lie; None leaves the server's own default.
        environment: variables to add to the caller's.
    """

    command: tuple[str, ...]
    backend_directory: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.command:
            raise ValueError("command: () names no program")


def find_install(cache: Path | None = None, named: str | None = None) -> TritonInstall:
    """The tritonserver to use: ``named``, variable TRITONSERVER, PATH, the container's place, then the wheel.

    Args:
        cache: folder for the layout of the wheel's files (default: `default_cache()`).
        named: a binary; overrides the variable.

    Raises:
        InstallError: there is none, or Python has no shared library for its stub.
    """
    named = named or os.environ.get(BINARY_VARIABLE)
    if named:
        return _installed(_named_binary(named))
    found = shutil.which("tritonserver") or shutil.which(CONTAINER_BINARY)
    return _installed(Path(found)) if found else _from_wheel(cache or default_cache())


def default_cache() -> Path:
    """The folder for prepared files: FUN_AUDIO_CHAT_CACHE, the virtual environment, or the user's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    own = Path(sys.prefix) / "var" / "triton"
    if sys.prefix != sys.base_prefix and (own.is_dir() or os.access(sys.prefix, os.W_OK)):
        return own
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fun-audio-chat-triton"


def _named_binary(named: str) -> Path:
    found = shutil.which(named)
    if found is None:
        raise InstallError(
            BINARY_VARIABLE, f"{named!r} is not an executable file", "name a tritonserver binary or unset the variable"
        )
    return Path(found)


def _installed(binary: Path) -> TritonInstall:
    """A server that lies where it was installed. Its stubs get this interpreter, which has our package."""
    # tritonserver looks in the place that it was compiled for; a copy elsewhere has its backends beside it.
    beside = binary.resolve().parent.parent / "backends"
    return TritonInstall(
        command=(str(binary),),
        backend_directory=beside if (beside / PYTHON_BACKEND / STUB).is_file() else None,
        environment=_interpreter(),
    )


def _from_wheel(cache: Path) -> TritonInstall:
    try:
        wheel = importlib.metadata.distribution(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        raise InstallError(
            "tritonserver",
            f"is not on PATH and the wheel {WHEEL} is not installed",
            f"run `make setup`, use NVIDIA's Triton container, or set {BINARY_VARIABLE}",
        ) from None
    site = Path(str(wheel.locate_file("")))
    triton = site / "pytriton" / "tritonserver"
    backends = _layout_backends(triton, cache / f"backends-{wheel.version}-py{STUB_PYTHON[0]}{STUB_PYTHON[1]}")
    libraries = (site / LIBRARIES, python_library().parent)
    return TritonInstall(
        command=(str(triton / "bin" / "tritonserver"),),
        backend_directory=backends,
        environment=_environment(libraries),
    )


def _layout_backends(triton: Path, target: Path) -> Path:
    """Copies the backends with the stub of our Python into `target`, once and atomically."""
    stub = triton / "python_backend_stubs" / f"{STUB_PYTHON[0]}.{STUB_PYTHON[1]}" / STUB
    if not stub.is_file():
        raise InstallError("tritonserver", f"the wheel has no {STUB} for Python 3.11", "run `make setup` again")
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InstallError(
            CACHE_VARIABLE, f"{target.parent}: {error}", "name a folder that can be written to"
        ) from None
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        made = Path(scratch) / "backends"
        shutil.copytree(triton / "backends", made, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy2(stub, made / PYTHON_BACKEND / STUB)
        (made / PYTHON_BACKEND / STUB).chmod(0o755)
        try:
            made.rename(target)
        except OSError:  # another process was faster; its layout is the same
            if not target.is_dir():
                raise
    return target


def python_library() -> Path:
    """The shared library of this Python, which the stub is linked to.

    Raises:
        InstallError: this is another Python version, or it was built without a shared library.
    """
    if sys.version_info[:2] != STUB_PYTHON:
        running = f"{sys.version_info[0]}.{sys.version_info[1]}"
        raise InstallError(
            "python",
            f"is {running}, and the bundled stub is used with 3.11",
            "make the environment with `make setup PYTHON=python3.11`, or use NVIDIA's Triton container",
        )
    folders = [Path(str(value)) for value in map(sysconfig.get_config_var, ("LIBDIR", "LIBPL")) if value]
    for folder in (*folders, *SYSTEM_LIBRARIES):
        if (folder / STUB_LIBRARY).is_file():
            return folder / STUB_LIBRARY
    raise InstallError(
        "python",
        f"{STUB_LIBRARY} is in none of {', '.join(map(str, folders))}",
        "install it (Debian, Ubuntu: apt-get install libpython3.11; "
        "pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install 3.11) and run `make setup` again",
    )


def _environment(libraries: tuple[Path, ...]) -> dict[str, str]:
    """Library path of the wheel's server, and its interpreter."""
    inherited = os.environ.get("LD_LIBRARY_PATH")
    search = [*map(str, libraries), *([inherited] if inherited else [])]
    return {"LD_LIBRARY_PATH": os.pathsep.join(search), **_interpreter()}


def _interpreter() -> dict[str, str]:
    """The variables through which a stub, which has its own Python inside, finds our packages."""
    binaries = str(Path(sys.executable).parent)
    added = {"PATH": os.pathsep.join([binaries, os.environ.get("PATH", os.defpath)])}
    if sys.prefix != sys.base_prefix:
        added["VIRTUAL_ENV"] = sys.prefix
    return added
