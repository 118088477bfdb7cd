"""The client is installed alone: it imports its own modules, the libraries that it declares, and nothing else."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODULES = sorted(path for path in (ROOT / "client").rglob("*.py") if "build" not in path.relative_to(ROOT).parts)
# Declared distributions by the name of their module; grpc comes with tritonclient, sounddevice is optional.
LIBRARIES = {"numpy", "soundfile", "soxr", "tritonclient", "grpc"}


def imports(path):
    """Dotted names; relative ones keep their dots."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_imports_itself_relatively_and_no_other_folder(path):
    for name in imports(path):
        top = name.partition(".")[0]
        assert name.startswith(".") or top in LIBRARIES or top in sys.stdlib_module_names, name


def test_the_protocol_imports_nothing_of_the_rest_of_the_client():
    for path in (ROOT / "client" / "protocol").glob("*.py"):
        assert not any(name.startswith("..") for name in imports(path)), path


def test_what_the_server_takes_from_it_loads_no_grpc():
    names = [f"client.protocol.{path.stem}" for path in (ROOT / "client" / "protocol").glob("[a-z]*.py")]
    code = (
        f"import sys, {', '.join(names)}; print([m for m in ('grpc', 'soundfile', 'tritonclient') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_libraries_are_those_that_it_declares():
    project = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {need.partition(">")[0].partition("[")[0] for need in project["dependencies"]}
    assert declared == LIBRARIES - {"grpc"}
