"""The client as another program installs it: its wheel in an empty environment, far from this checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.perf.clips import made_question
from builders.upstream import REQUIRED
from client import write_wav
from client.address import DEFAULT_URL
from client.protocol.version import VERSION

ROOT = Path(__file__).parents[2]
PIP = [sys.executable, "-m", "pip", "--quiet"]
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
NEEDS = {"numpy", "tritonclient", "soundfile", "soxr"}
UNWANTED = {"client", "runtime", "kernels", "builders", "scripts", "tests", "benchmarks", "protocol", "sound"}


def run(*words, **options):
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=CLEAN, **options)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "client", folder / "client", ignore=shutil.ignore_patterns("__pycache__", "build"))
    made = run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "client")
    assert made.returncode == 0, made.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The Python of an environment that holds the client and what it needs."""
    folder = tmp_path_factory.mktemp("application") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    done = run(*PIP, "--python", python, "install", wheel)
    if done.returncode and not os.environ.get(REQUIRED):
        pytest.skip(f"the client's libraries cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def readme_example():
    readme = (ROOT / "README.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n# first audio\n(.*?)```", readme, re.S)
    return code


def test_the_ten_lines_of_the_readme_reach_first_audio(stub_server, installed, tmp_path):
    code = readme_example()
    assert len(code.strip().splitlines()) <= 10
    (tmp_path / "output").mkdir()  # where the demo leaves it
    write_wav(tmp_path / "output" / "question.wav", made_question(1.0), 16_000)
    done = run(installed, "-c", code.replace(DEFAULT_URL, stub_server.url), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"first audio after \d+ ms: \d+ samples\n", done.stdout)


def test_nothing_of_ours_lands_beside_the_one_name(installed):
    (site,) = installed.parents[1].glob("lib/python*/site-packages")
    found = {path.name for path in site.iterdir()}
    assert "fun_audio_chat_client" in found and not found & UNWANTED
    assert {name for name in found if "fun" in name} == {
        "fun_audio_chat_client", f"fun_audio_chat_client-{VERSION}.dist-info",
    }  # fmt: skip
    assert not found & {"torch", "transformers", "tqdm"}


def test_the_wheel_needs_four_libraries(installed):
    listed = "import importlib.metadata as m; print(*m.requires('fun-audio-chat-client'), sep='\\n')"
    needs = run(installed, "-c", listed, check=True).stdout.splitlines()
    assert {re.match(r"\w+", need)[0] for need in needs if "extra" not in need} == NEEDS


@pytest.mark.parametrize("words", [(), ("batch",)])
def test_the_command_calls_itself_by_the_name_under_which_it_runs(installed, tmp_path, words):
    for python, package, folder in ((installed, "fun_audio_chat_client", tmp_path), (sys.executable, "client", ROOT)):
        done = run(python, "-m", package, *words, "--help", cwd=folder)
        assert done.returncode == 0 and done.stdout.startswith(" ".join(("usage: python -m", package, *words, "")))


def test_the_installed_command_asks_and_tells_its_version(stub_server, installed, tmp_path):
    program = (installed, "-m", "fun_audio_chat_client")
    assert run(*program, "--version").stdout == f"{VERSION}\n"
    done = run(*program, "--text", '{"chunks": 2}', "--url", stub_server.url, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.suffix for path in (tmp_path / "output").iterdir()) == [".json", ".txt", ".wav"]
    done = run(*program, "--text", "x", "--url", "127.0.0.1:1", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("UNAVAILABLE: server: ") and done.stderr.count("\n") == 1


def test_every_module_of_the_client_is_in_the_wheel(wheel, installed):
    """The list of packages in client/pyproject.toml is written by hand."""
    code = "import fun_audio_chat_client as c, pathlib; print(pathlib.Path(c.__file__).parent)"
    there = Path(run(installed, "-c", code, check=True).stdout.strip())
    tracked = {path.relative_to(ROOT / "client") for path in (ROOT / "client").rglob("*.py")}
    assert {path for path in tracked if path.parts[0] != "build"} == {
        path.relative_to(there) for path in there.rglob("*.py")
    }
