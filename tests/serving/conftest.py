"""A real tritonserver on the golden checkpoints, shared by all tests of this folder."""

import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

import chat_data
import token2wav_data
from harness import KEY_STREAMS, OTHER_STREAMS, gauges

from builders.build import BuildRequest, build
from client import ChatClient
from runtime.server.launch import ServerProcess
from runtime.serving.limits import RequestLimits


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The golden checkpoints, built for the cpu target."""
    folder = tmp_path_factory.mktemp("built")
    token2wav_data.materialise_cosyvoice(folder / "cosyvoice")
    # So high that only the tests of these limits meet them.
    limits = RequestLimits(streams_per_key=KEY_STREAMS, streams_without_key=OTHER_STREAMS)
    build(BuildRequest("cpu", folder / "cpu", chat_data.CHECKPOINT, folder / "cosyvoice", limits=limits), print)
    return folder / "cpu"


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
