"""A real tritonserver on the golden checkpoints, shared by all tests of this folder."""

import time

import pytest
from harness import gauges

from client import ChatClient
from runtime.server.launch import ServerProcess


@pytest.fixture(scope="session")
def server(triton, built):
    with ServerProcess(built) as running:
        time.sleep(1.0)  # the gauges are set at every poll; nobody else has asked anything yet
        running.frames_when_ready = gauges(running)["frames"]
        yield running


@pytest.fixture
def client(server):
    with ChatClient(server.url) as connected:
        yield connected
