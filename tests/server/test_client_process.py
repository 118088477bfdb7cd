"""The command line client as a process against the stub server: exit codes, one line of error, Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from awaiting import until


def command(server_url, tmp_path, script, *more):
    program = [sys.executable, "-m", "client", "--url", server_url, "--output-dir", str(tmp_path), *more]
    return [*program, "--text", json.dumps(script)]


def test_an_answer_is_printed_and_written(stub_server, tmp_path):
    done = subprocess.run(command(stub_server.url, tmp_path, {"chunks": 3}), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("ä0 ä1 ä2 \nfirst text ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["request_0.json", "request_0.txt", "request_0.wav"]


@pytest.mark.parametrize(
    ("script", "more", "words"),
    [
        ({"error": "NotFound"}, (), "NOT_FOUND: audio: is a stub's; do nothing"),
        ({"chunks": 99, "delay_s": 0.05}, ("--timeout", "0.2"), "DEADLINE_EXCEEDED: timeout"),
        ({}, ("--url", "127.0.0.1:1"), "UNAVAILABLE: server: 127.0.0.1:1 cannot be reached"),
    ],
)
def test_an_error_is_one_line(stub_server, tmp_path, script, more, words):
    done = subprocess.run(command(stub_server.url, tmp_path, script, *more), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and words in done.stderr
    assert not list(tmp_path.iterdir())


def test_ctrl_c_cancels_on_the_server(stub_server, tmp_path):
    mark = stub_server.out / "run" / "cancelled"
    mark.unlink(missing_ok=True)
    script = {"chunks": 200, "delay_s": 0.05}
    client = subprocess.Popen(
        command(stub_server.url, tmp_path, script), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert client.stdout.read(3) == "ä0 "
    client.send_signal(signal.SIGINT)
    _, error = client.communicate(timeout=10)
    assert client.returncode == 130
    assert error.count("\n") == 1 and "CANCELLED" in error
    until(mark.exists, what="the model saw no cancellation")
