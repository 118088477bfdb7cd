"""What a terminal cannot show or take ends no answer."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sound_files import DATA, written

from client import ChatClient, ChatError, batch
from client.batch_items import passed_over, read_items
from client.screen import Screen
from client.sound.quiet import quiet_decoder

ROOT = Path(__file__).parents[3]
ANSWER = "你好 \ufffd"
# The command line with a client that answers at once.
PROGRAM = f"""
import sys
import numpy as np
from client import Chunk, cli
class Stream(list):
    __enter__ = lambda self: self
    __exit__ = lambda self, *error: None
class Client:
    def __init__(self, *args, **more): pass
    __enter__ = lambda self: self
    __exit__ = lambda self, *error: None
    def stream(self, *args, **more):
        return Stream([Chunk(text={ANSWER!a}, audio=np.zeros(99, np.float32), finish_reason="stop")] * 3)
cli.ChatClient = Client
sys.exit(cli.main(sys.argv[1:]))
"""


def ask(tmp_path, redirect="", **variables):
    """Exit status, output and errors of a question, as a shell runs it."""
    words = [sys.executable, "-c", PROGRAM, "--text", "hi", "--output-dir", str(tmp_path)]
    command = f'"$@" {redirect}'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}", "bash", *words],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), **variables}, capture_output=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (tmp_path / "request_0.txt").read_text("utf-8") == ANSWER * 3
    assert json.loads((tmp_path / "request_0.json").read_text("utf-8"))["text"] == ANSWER * 3
    assert (tmp_path / "request_0.wav").is_file() and b"Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "utf-8:strict"])
def test_a_terminal_of_another_encoding(tmp_path, encoding):
    status, shown, errors = ask(tmp_path, PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, b"")
    name = encoding.partition(":")[0]
    assert shown.decode(name).splitlines()[0] == (ANSWER * 3).encode(name, "backslashreplace").decode(name)


@pytest.mark.parametrize("redirect", ["| true", "| head -c 1", ">&-"])
def test_a_reader_that_leaves_costs_no_answer(tmp_path, redirect):
    assert ask(tmp_path, redirect)[::2] == (0, b"")


def test_a_full_disk_is_an_error_after_the_files_are_written(tmp_path):
    status, _, errors = ask(tmp_path, "> /dev/full")
    assert status == 1 and errors.count(b"\n") == 1
    assert errors.startswith(b"INTERNAL: output: ") and b"the answer is in" in errors


def test_a_screen_of_any_stream():
    screen = Screen(None)
    assert screen.write("x") == 1 and not screen.isatty()
    out = io.TextIOWrapper(made := io.BytesIO(), "ascii")
    screen = Screen(out)
    screen.write("é\udcff")
    screen.flush()
    assert made.getvalue() == b"\\xe9\\udcff"


def test_the_decoder_is_quiet_and_nothing_else(capfd):
    with quiet_decoder():
        os.write(2, b"Warning: Xing stream size off\n[src/libmpg123/layer3.c:1()] error: x\nmine\n")
    assert capfd.readouterr().err == "mine\n"


FOLDER = ("opus.opus", "voice.oga", "c.aiff", "x.wave", "no ending", "wrong.txt")


def folder(tmp_path):
    source = tmp_path / "questions"
    source.mkdir()
    for name in FOLDER:
        is_opus = name.startswith(("opus", "voice"))
        (source / name).write_bytes((DATA / "voice_note.opus").read_bytes() if is_opus else written())
    for name in ("fake.m4a", "notes.md", "headerless.raw", "line\nbreak.txt"):
        (source / name).write_bytes(b"no sound")
    return source


def test_a_folder_gives_all_that_can_be_read_and_names_the_rest(tmp_path):
    source = folder(tmp_path)
    assert {item.audio.name for item in read_items(source, tmp_path / "results")} == set(FOLDER)
    over = {path.name for path in passed_over(source, tmp_path / "results")}
    assert over == {"fake.m4a", "notes.md", "headerless.raw", "line\nbreak.txt"}


def test_a_folder_without_sound_names_what_is_there(tmp_path):
    (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x18ftypM4A ")
    with pytest.raises(ChatError, match=r"nothing to ask.*1 passed over.*x\.m4a"):
        read_items(tmp_path, tmp_path / "results")


def test_a_batch_tells_what_it_passed_over(tmp_path, capsys):
    tally = batch.Tally(passed_over=[tmp_path / "x.m4a", tmp_path / "y.webm"])
    assert batch.conclude(tmp_path, tally, 1, Screen(sys.stdout), Screen(sys.stderr)) == 0
    assert capsys.readouterr().err == "2 passed over, as no sound that can be read here: x.m4a, y.webm\n"


@pytest.mark.parametrize("headers", [{"a": "é"}, {"a": "b\nc"}, {"ä": "b"}, {"": "b"}, {"a": 5}, {"a b": "c"}])
def test_headers_that_cannot_be_sent(headers):
    with pytest.raises(ChatError, match=r"^INVALID_ARG: headers: "):
        ChatClient("127.0.0.1:1", headers=headers)
