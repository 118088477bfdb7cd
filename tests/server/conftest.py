"""Fixtures that run a real tritonserver; skipped where none can be had, and the skip says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from stub_repository import QUICK, make_stub_repository

from runtime.server.bundle import find_install
from runtime.server.errors import InstallError
from runtime.server.launch import ServerProcess


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.server)


@pytest.fixture(scope="session")
def triton():
    """The tritonserver of this machine."""
    try:
        return find_install()
    except InstallError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def stub_server(triton, tmp_path_factory):
    """A server on the stub model, shared by tests that leave it alive."""
    out = make_stub_repository(tmp_path_factory.mktemp("stub"))
    with ServerProcess(out, options=QUICK) as server:
        yield server
