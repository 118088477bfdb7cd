"""No command ends in a traceback: whatever a library raises is one line on standard error."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from client.protocol.command_line import FAILED, INTERRUPTED, TRACEBACK_VARIABLE, run_command
from runtime.errors import BuildError


class Strange(Exception):
    """Of a library that has its own idea of errors, with words of many lines."""


def raising(error):
    def program():
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BuildError("MODEL", "is none", "give one"), "INTERNAL: MODEL: is none; give one"),
        (PermissionError(13, "Permission denied", "/sys/x"), "'/sys/x'"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "UnicodeDecodeError: "),
        (ModuleNotFoundError("No module named 'soxr'"), "make setup"),
        (MemoryError("std::bad_alloc"), "memory: std::bad_alloc"),
        (Strange("one\ntwo\n\nthree"), "Strange: one two three"),
        (RuntimeError(), "RuntimeError: no further words"),
        (RecursionError("too deep"), "RecursionError"),
    ],
)
def test_any_error_is_one_line(error, words, capsys):
    assert run_command(raising(error)) == FAILED
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and words in printed and "Traceback" not in printed


def test_an_interrupt_is_one_line_too(capsys):
    assert run_command(raising(KeyboardInterrupt())) == INTERRUPTED
    assert capsys.readouterr().err.count("\n") == 1


def test_usage_errors_keep_their_status():
    with pytest.raises(SystemExit, match="2"):
        run_command(raising(SystemExit(2)))


def test_a_developer_may_see_where_it_comes_from(monkeypatch):
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1")
    with pytest.raises(Strange):
        run_command(raising(Strange("x")))


SPEAK = (
    "import sys; from client.protocol.command_line import run_command;"
    " sys.exit(run_command(lambda: print('答' * 100000)))"
)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_cannot_show_a_character_gets_an_escape(encoding):
    made = subprocess.run(
        [sys.executable, "-c", SPEAK], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=True
    )
    assert made.stdout.startswith(rb"\u7b54\u7b54") and not made.stderr


@pytest.mark.parametrize("reader", ["true", "head -c 10"])
def test_a_reader_that_goes_away(reader):
    line = f'"{sys.executable}" -c "{SPEAK}" | {reader}; exit ${{PIPESTATUS[0]}}'
    made = subprocess.run(["bash", "-c", line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert made.returncode == FAILED
    assert made.stderr.splitlines() == ["INTERNAL: output: the program that read it has gone"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "builders", "build", "--out", "/dev/null/x"],
        ["-m", "builders", "build", "--out", "/proc/x"],
        ["-m", "builders", "verify", "--out", "/dev/null/x"],
        ["-m", "runtime.supervisor", "--out", "/dev/null/x"],
        ["-m", "runtime.supervisor", "--no-verify", "--out", "/dev/null/x"],
        ["-m", "client", "batch", "/dev/null/x"],
        ["-m", "client", "--text", "x", "--url", "127.0.0.1:1", "--output-dir", "/dev/null/x"],
        ["-m", "benchmarks.perf", "report", "/dev/null/x"],
        ["-m", "benchmarks.perf", "compare", "/dev/null/x", "/dev/null/y"],
        ["-m", "builders.parity", "--out", "/dev/null/x"],
        ["-m", "builders.parity.authors", "--model", "/dev/null/x", "--vectors", "/dev/null/y"],
        ["-m", "scripts.demo", "--out", "/dev/null/x"],
        ["-m", "scripts.demo", "--output-dir", "/dev/null/x"],
        ["-m", "tests.endurance.soak", "--out", "/dev/null/x", "--minutes", "0.01"],
    ],
)
def test_paths_that_cannot_be_used_are_one_line(command, pytestconfig):
    made = subprocess.run([sys.executable, *command], cwd=pytestconfig.rootpath, capture_output=True, text=True)
    assert made.returncode != 0
    assert "Traceback" not in made.stderr
    own = made.stderr.rpartition("\n---\n")[2]  # behind the log of a server that was started
    assert made.returncode == 2 or own.count("\n") == 1, "usage errors have argparse's two lines"
