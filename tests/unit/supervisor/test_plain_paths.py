"""Whatever a path holds, tritonserver is given one that its Python backend can bear, and it leads to the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.supervisor import plain_paths as module
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.errors import UnusablePath
from runtime.supervisor.plain_paths import is_plain, plain_paths

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
HOSTILE = [
    "with space",
    "par(en)",
    "d$HOME",
    "a$(touch x)b",
    "模型",
    "accé",
    "a;b",
    "q'uote",
    'dq"',
    "new\nline",
    "*",
]


@pytest.fixture
def own_temporary_folder(monkeypatch, tmp_path):
    """Links go below a folder of the test."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "t"))
    (tmp_path / "t").mkdir()
    return tmp_path


def built_folder(out: Path, model: str = "tiny") -> Path:
    (out / "model_repository" / "fun_audio_chat").mkdir(parents=True)
    (out / "engines").mkdir()
    (out / "engines" / "graph.onnx").write_text("graph")
    (out / "options.json").write_text(json.dumps({"model": model, "cosyvoice": "", "threads": 1}), "utf-8")
    return out


def test_plain_paths_are_left_alone(own_temporary_folder, monkeypatch):
    for name in ("prefix", "base_prefix"):  # wherever this checkout lies
        monkeypatch.setattr(sys, name, "/usr")
    monkeypatch.setattr(module, "PACKAGE_ROOT", Path("/opt/package"))
    out = built_folder(own_temporary_folder / "build")
    found = plain_paths(out, TritonInstall(("tritonserver",), out / "backends"))
    assert (found.out, found.links, found.install.environment) == (out, None, {})


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_reached_by_plain_links(own_temporary_folder, name):
    out = built_folder(own_temporary_folder / name)
    found = plain_paths(out, TritonInstall(("tritonserver",)))
    assert is_plain(found.out)
    assert (found.out / "engines" / "graph.onnx").read_text() == "graph"
    assert (found.out / "options.json").read_text() == (out / "options.json").read_text()
    (found.out / "run" / "lock").write_text("1")
    assert (out / "run" / "lock").read_text() == "1", "one lock, by whichever path"
    found.remove()
    assert not found.links.exists()
    assert (out / "engines" / "graph.onnx").read_text() == "graph", "links go, what they lead to stays"


@settings(max_examples=60)
@given(NAMES, NAMES, NAMES)
def test_any_names_of_folder_checkpoint_and_backends(out_name, model_name, backends_name):
    with tempfile.TemporaryDirectory() as scratch:
        top = Path(scratch)
        model = top / "m" / model_name
        model.mkdir(parents=True)
        (model / "config.json").write_text("{}")
        out = built_folder(top / "o" / out_name, str(model))
        backends = top / "b" / backends_name
        backends.mkdir(parents=True)
        found = plain_paths(out, TritonInstall(("tritonserver",), backends))
        try:
            options = json.loads((found.out / "options.json").read_text("utf-8"))
            assert is_plain(found.out) and is_plain(found.install.backend_directory) and is_plain(options["model"])
            assert (found.out / options["model"] / "config.json").read_text() == "{}"
            assert options["threads"] == 1
            assert found.install.backend_directory.samefile(backends)
            assert plain_paths(out, TritonInstall(("tritonserver",), backends)) == found, "the same at every start"
        finally:
            found.remove()


def test_a_folder_that_nothing_may_be_written_to_gets_a_run_folder_elsewhere(own_temporary_folder, monkeypatch):
    out = built_folder(own_temporary_folder / "build")
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != out and real(path, mode))
    found = plain_paths(out, TritonInstall(("tritonserver",)))
    (found.out / "run").mkdir(exist_ok=True)
    (found.out / "run" / "lock").write_text("1")
    assert not (out / "run").exists()
    assert (found.out / "engines" / "graph.onnx").read_text() == "graph"


def test_an_odd_interpreter_is_found_by_plain_links(own_temporary_folder, monkeypatch):
    odd = own_temporary_folder / "sp ace é"
    odd.mkdir()
    (odd / "venv").symlink_to(sys.prefix)
    program = (
        "import sys; from pathlib import Path; from runtime.supervisor.bundle import TritonInstall;"
        "from runtime.supervisor.plain_paths import plain_paths; import json;"
        f"found = plain_paths(Path({str(own_temporary_folder / 'out')!r}), TritonInstall(('x',)));"
        "print(json.dumps(dict(found.install.environment)))"
    )
    built_folder(own_temporary_folder / "out")
    environment = {**os.environ, "TMPDIR": str(own_temporary_folder / "t")}
    made = subprocess.run(
        [odd / "venv" / "bin" / "python", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(made.stdout)
    assert is_plain(found["VIRTUAL_ENV"])
    program = "import runtime, numpy; print(runtime.__file__, numpy.__file__)"
    inside = [Path(found["VIRTUAL_ENV"]) / "bin" / "python3", "-c", program]
    files = subprocess.run(inside, capture_output=True, text=True, check=True, cwd="/").stdout.split()
    assert len(files) == 2 and all(map(is_plain, files))


def test_a_folder_of_others_takes_no_links(own_temporary_folder, monkeypatch):
    """A predictable name below a folder that everybody may write to."""
    out = built_folder(own_temporary_folder / "with space")
    first = plain_paths(out, TritonInstall(("tritonserver",)))
    first.remove()
    trap = own_temporary_folder / "trap"
    trap.mkdir()
    first.links.symlink_to(trap)
    monkeypatch.setattr(module, "FALLBACK_FOLDERS", ())
    with pytest.raises(UnusablePath, match="TMPDIR"):
        plain_paths(out, TritonInstall(("tritonserver",)))
    assert not list(trap.iterdir())
