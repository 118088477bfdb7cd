"""Built folders, interpreters and checkouts anywhere a file system allows, and stubs that die while they load."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from stub_repository import QUICK, make_stub_repository

from client import ChatClient
from runtime.supervisor.errors import StartFailed
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children
from runtime.supervisor.watch import is_stub

NOTICED_S = 40.0  # a stub's death while loading: 10 s without one, and a busy machine
PATHS = ["sp ace 模型é", "par(en) $HOME", "a$(touch ran)b;'\"&|", "new\nline*"]
FIRST_ANSWER = "ä0 "


@pytest.mark.parametrize("name", PATHS)
def test_a_built_folder_anywhere_is_served_and_no_shell_reads_its_name(triton, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = make_stub_repository(tmp_path / name)
    with ServerProcess(out, options=QUICK) as server, ChatClient(server.url) as chat:
        assert chat.ask(text="{}").text == FIRST_ANSWER
        assert server.stop() == 0
    assert not (tmp_path / "ran").exists()


def test_an_interpreter_and_a_package_anywhere(triton, tmp_path):
    """As in a checkout whose folder has a space and letters that are not ASCII."""
    odd = tmp_path / "sp ace 模型é"
    odd.mkdir()
    (odd / "venv").symlink_to(sys.prefix)
    source = Path(__file__).parents[2] / "runtime"
    shutil.copytree(source, odd / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    out = make_stub_repository(tmp_path / "sp ace")
    with ServerProcess(out, options=QUICK) as first, ChatClient(first.url) as chat:
        threads = [threading.Thread(target=_refused, args=(out,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert chat.ask(text="{}").text == FIRST_ANSWER
        (server,) = children(first.pid)
        for stub in [child for child in children(server.pid) if is_stub(child)]:
            os.kill(stub.pid, signal.SIGKILL)
        first.wait_ready(120.0, announcements=2)
        assert chat.ask(text="{}").text == FIRST_ANSWER


def _refused(out: Path) -> None:
    with pytest.raises(StartFailed, match="is being served by process"):
        ServerProcess(out, options=QUICK).start()


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("import json\n", "(the stub of fun_audio_chat|every stub) died while it was loading"),
        ("        self.frozen = False\n", "not healthy"),
        ("        for request in requests:\n", "killed by signal|not healthy|was not loaded: "),
    ],
)
def test_a_stub_that_dies_at_any_time_of_its_load_ends_the_start(triton, tmp_path, before, words):
    out = make_stub_repository(tmp_path / "out")
    model = out / "model_repository" / "fun_audio_chat" / "1" / "model.py"
    indent = " " * (len(before) - len(before.lstrip()))
    model.write_text(model.read_text().replace(before, f"{indent}import os; os.kill(os.getpid(), 9)\n{before}", 1))
    began = time.monotonic()
    with pytest.raises(StartFailed, match=words) as caught:
        ServerProcess(out, options=QUICK).start()
    assert time.monotonic() - began < NOTICED_S and "1800 s" not in str(caught.value)
