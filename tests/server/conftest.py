"""A real tritonserver on a stub model."""

from __future__ import annotations

import pytest
from stub_repository import QUICK, make_stub_repository

from runtime.server.launch import ServerProcess


@pytest.fixture(scope="session")
def stub_server(triton, tmp_path_factory):
    """A server on the stub model, shared by tests that leave it alive."""
    out = make_stub_repository(tmp_path_factory.mktemp("stub"))
    with ServerProcess(out, options=QUICK) as server:
        yield server
