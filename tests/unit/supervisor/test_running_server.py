"""Which server is measured and diagnosed: one that answers over gRPC runs, wherever its HTTP port is."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from benchmarks.perf import target
from benchmarks.server import scrape
from client import ChatError
from runtime.supervisor.config import Addresses
from runtime.supervisor.ports import free_addresses, is_local
from scripts.doctor import deployment
from scripts.doctor.finding import FAIL, OK


class Metadata(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Describes its model, or refuses to."""

    def __init__(self, refusal):
        self.refusal = refusal

    def ModelMetadata(self, request, context):
        if self.refusal is not None:
            context.abort(self.refusal, "by this test")
        return service_pb2.ModelMetadataResponse(name=request.name)


@pytest.fixture
def serve():
    """Starts servers of gRPC alone; returns their addresses."""
    servers = []

    def start(refusal=None):
        addresses = free_addresses()
        server = grpc.server(ThreadPoolExecutor(1))
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Metadata(refusal), server)
        server.add_insecure_port(addresses.grpc)
        server.start()
        servers.append(server)
        return addresses

    yield start
    for server in servers:
        server.stop(None)


REFUSALS = {None: "ok", grpc.StatusCode.PERMISSION_DENIED: "FAIL"}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_server_without_reachable_http_runs(serve, tmp_path, refusal):
    addresses = serve(refusal)
    with target.server_at(addresses, tmp_path) as words:
        assert words == "found running"
    ports, server, access = deployment.check_server(addresses, tmp_path)
    assert (ports.state, server.state, access.state) == (OK, OK, REFUSALS[refusal])
    assert addresses.http in ports.found


def test_a_stranger_on_the_port_is_no_server(serve, tmp_path):
    addresses = serve(grpc.StatusCode.UNIMPLEMENTED)
    with pytest.raises(ChatError, match="is not built"), target.server_at(addresses, tmp_path / "none"):
        pass
    ports, _ = deployment.check_server(addresses, tmp_path)
    assert ports.state == FAIL and "GRPC_PORT=" in ports.fix


def test_something_else_on_every_port_is_no_server(tmp_path):
    """One that greets like a shell's server: no word of HTTP."""
    with ExitStack() as stack:
        listeners = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        for listener in listeners:
            threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        addresses = Addresses("127.0.0.1", *(listener.getsockname()[1] for listener in listeners))
        assert scrape(addresses.metrics_url) == {}
        ports, *_ = deployment.check_server(addresses, tmp_path)
        assert ports.state == FAIL


def _greet(listener):
    try:
        while True:
            with listener.accept()[0] as connection:
                connection.sendall(b"SSH-2.0-x\r\n")
    except OSError:  # the test is over
        pass


def test_nothing_is_started_for_another_machine(monkeypatch, tmp_path):
    addresses = free_addresses()
    for module in (target, deployment):
        monkeypatch.setattr(module, "is_local", lambda host: False)
    refused = pytest.raises(ChatError, match=r"UNAVAILABLE: server: .*no address of this machine; start it there")
    with refused, target.server_at(addresses, tmp_path):
        pass
    (server,) = deployment.check_server(addresses, tmp_path)
    assert server.state == FAIL and "start it there" in server.fix


@pytest.mark.parametrize(("host", "local"), [("127.0.0.1", True), ("0.0.0.0", True), ("192.0.2.1", False)])
def test_addresses_of_this_machine(host, local):
    assert is_local(host) == local
