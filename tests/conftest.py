"""What the tests of all folders share: the marker of real-server tests and the server that they need."""

from __future__ import annotations

import os
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from builders import upstream
from runtime.products import exact_products
from runtime.supervisor.bundle import find_install
from runtime.supervisor.errors import InstallError

os.environ.update(exact_products())  # as the supervisor does; read at the first product
if not torch.cuda.is_available():
    # Triton reads it when it is imported, which is later and only where kernels are used.
    os.environ.setdefault("TRITON_INTERPRET", "1")

if find_spec("hypothesis") is not None:  # a bare machine with a GPU runs the tests of its kernels without
    import hypothesis

    # The same examples in every run: a change is judged by what it changes. HYPOTHESIS_PROFILE=default seeks others.
    hypothesis.settings.register_profile(
        "repeatable", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

BUILT_VARIABLE = "GOLDEN_BUILT"  # a folder that `built` made earlier, to save its minute
SERVER_FOLDERS = {Path(__file__).parent / name for name in ("server", "serving", "faults", "endurance")}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent in SERVER_FOLDERS:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def triton():
    """The tritonserver of this machine; where there is none, the skip says why."""
    try:
        return find_install()
    except InstallError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """The golden checkpoints, built for the cpu target."""
    import chat_data
    import token2wav_data
    from harness import KEY_STREAMS

    from builders.build import build
    from builders.request import BuildRequest
    from builders.settings import Settings

    if BUILT_VARIABLE in os.environ:
        return Path(os.environ[BUILT_VARIABLE])
    folder = tmp_path_factory.mktemp("built")
    token2wav_data.materialise_cosyvoice(folder / "cosyvoice")
    settings = Settings({"limits": {"streams_per_key": KEY_STREAMS}})  # only the tests of this limit send keys
    build(BuildRequest("cpu", folder / "cpu", chat_data.CHECKPOINT, folder / "cosyvoice", settings=settings), print)
    return folder / "cpu"


@pytest.fixture(scope="session")
def server(triton, built):
    """A tritonserver on the golden checkpoints, shared by all tests that leave it alive."""
    from harness import gauges

    from runtime.supervisor.launch import ServerProcess

    with ServerProcess(built) as running:
        time.sleep(1.0)  # the gauges are set at every poll; no other client has asked anything yet
        running.when_ready = gauges(running)
        yield running


@pytest.fixture
def client(server):
    """A client of the shared server."""
    from client import ChatClient

    with ChatClient(server.url) as connected:
        yield connected


@pytest.fixture(scope="session")
def fetched():
    """The folder of real packages; a skip that says why they cannot be had, a failure where they must be."""

    def fetch(wheels: upstream.Wheels):
        try:
            return wheels.fetch()
        except upstream.CannotBeHad as error:
            (pytest.fail if os.environ.get(upstream.REQUIRED) else pytest.skip)(str(error))

    return fetch
