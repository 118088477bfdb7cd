"""Real tritonservers on a stub model: open, encrypted, and with everything on."""

from __future__ import annotations

import pytest
from certificates import make_certificates
from secured import ADMIN_KEY, TOKEN, own_server
from stub_repository import QUICK, make_stub_repository

from client import Tls
from runtime.supervisor.config import Addresses
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.ports import free_addresses


@pytest.fixture(scope="session")
def stub_server(triton, tmp_path_factory):
    """A server on the stub model, shared by tests that leave it alive."""
    out = make_stub_repository(tmp_path_factory.mktemp("stub"))
    with ServerProcess(out, options=QUICK) as server:
        yield server


@pytest.fixture(scope="module")
def secrets_(tmp_path_factory):
    folder = make_certificates(tmp_path_factory.mktemp("secrets"))
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "admin").write_text(ADMIN_KEY + "\n")
    return folder


@pytest.fixture(scope="module")
def guarded(triton, secrets_, tmp_path_factory):
    """Everything on: TLS with certificates on both sides, a token, an admin key; as if for the whole network."""
    files = {"tls-cert": "server.crt", "tls-key": "server.key", "tls-client-ca": "ca.crt", "token-file": "token",
             "admin-key-file": "admin"}  # fmt: skip
    options = [f"--{name}={secrets_ / file}" for name, file in files.items()]
    with own_server(tmp_path_factory, *options) as server:
        yield server


@pytest.fixture(scope="module")
def encrypted(triton, secrets_, tmp_path_factory):
    """TLS only, on all addresses."""
    free = free_addresses()
    options = (f"--tls-cert={secrets_ / 'server.crt'}", f"--tls-key={secrets_ / 'server.key'}")
    with own_server(tmp_path_factory, *options, addresses=Addresses("0.0.0.0", *free.ports().values())) as server:
        yield server


@pytest.fixture
def tls(secrets_):
    """Certificates by the name of the client's own."""

    def make(own=None, ca="ca"):
        pair = (secrets_ / f"{own}.crt", secrets_ / f"{own}.key") if own else (None, None)
        return Tls(str(secrets_ / f"{ca}.crt") if ca else None, *pair)  # as a string or a path

    return make
