"""A tritonserver laid out as in NVIDIA's container: found by its binary, its backends beside it."""

from __future__ import annotations

import shutil

import pytest
from stub_repository import QUICK, make_stub_repository

from client import ChatClient
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children


@pytest.fixture
def container_binary(triton, tmp_path, monkeypatch):
    """The bundled server's files in the container's places, with the image's kind of environment."""
    if triton.backend_directory is None:
        pytest.skip("tests run on an installed tritonserver already")
    root = tmp_path / "opt" / "tritonserver"
    (root / "bin").mkdir(parents=True)
    binary = root / "bin" / "tritonserver"
    shutil.copy2(triton.command[0], binary)
    (root / "backends").symlink_to(triton.backend_directory)
    monkeypatch.setenv("LD_LIBRARY_PATH", triton.environment["LD_LIBRARY_PATH"])
    return binary


def test_the_named_server_answers(container_binary, tmp_path):
    out = make_stub_repository(tmp_path / "out")
    with ServerProcess(out, options=(*QUICK, f"--triton={container_binary}")) as server:
        (running,) = children(server.pid)
        assert running.command[0] == str(container_binary)
        assert f"--backend-directory={container_binary.parents[1] / 'backends'}" in running.command
        with ChatClient(server.url) as client:
            chunks = list(client.stream(text='{"chunks": 3}'))
    assert len(chunks) >= 3
