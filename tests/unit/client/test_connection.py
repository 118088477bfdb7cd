"""The way to the server: far, interrupted, forgotten after a pause, or through a proxy that knows nothing of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client import NO_RETRY, ChatClient, ChatError
from client import connection as connection_module
from client.access import OPEN
from client.address import is_near
from client.connection import KeepAlive, channel_options
from client.probe import probe
from client.protocol.wire import KEEPALIVE_TIMEOUT_MS
from client.retry import RetryPolicy
from tests.endurance.relay import Relay

FAR_S = 0.3  # one way
STALL_S = 7.0
CHUNKS, EVERY_S = 80, 0.1


class Server(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Describes its model; answers with texts, one every ``EVERY_S``."""

    def ModelMetadata(self, request, context):
        return service_pb2.ModelMetadataResponse(name=request.name)

    def ModelStreamInfer(self, requests, context):
        next(requests)
        for _ in range(CHUNKS):
            time.sleep(EVERY_S)
            yield service_pb2.ModelStreamInferResponse()


@pytest.fixture(scope="module")
def port():
    """Of a server of gRPC alone."""
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Server(), server)
    yield server.add_insecure_port("127.0.0.1:0"), server.start()
    server.stop(None)


@pytest.fixture
def relay(port):
    made = Relay(f"127.0.0.1:{port[0]}")
    yield made
    made.close()


def test_the_first_request_reaches_a_far_server(relay):
    relay.delay_s = FAR_S
    began = time.monotonic()
    probe(relay.url, OPEN)
    assert time.monotonic() - began > 2 * FAR_S, "it was far: question and answer, there and back"


@pytest.mark.slow
def test_an_answer_survives_a_link_that_stands_still(relay):
    """Neither the ping that asks for the bandwidth nor the socket's own limit may end it."""
    with connection_module.open_channel(relay.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        answer = stub.ModelStreamInfer(iter((service_pb2.ModelInferRequest(),)), timeout=60)
        next(answer)
        relay.flows.clear()
        threading.Timer(STALL_S, relay.flows.set).start()
        assert sum(1 for _ in answer) == CHUNKS - 1


def test_stalls_are_waited_for_on_both_sides():
    options = dict(channel_options("a:1", KeepAlive()))
    limits = {options["grpc.keepalive_timeout_ms"], options["grpc.http2.ping_timeout_ms"], KEEPALIVE_TIMEOUT_MS}
    assert len(limits) == 1 and limits.pop() >= 2 * 1000 * STALL_S
    assert RetryPolicy().reconnect_s * 1000 > options["grpc.min_reconnect_backoff_ms"], "for one whole attempt"


@pytest.mark.slow
def test_after_a_pause_the_way_is_made_anew(relay, monkeypatch):
    """What was between may have forgotten the old one without a word."""
    monkeypatch.setattr(connection_module, "IDLE_MS", 1_000)
    with connection_module.open_channel(relay.url) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for connections in (1, 1, 2):
            time.sleep(0.0 if connections == 1 else 2.5)
            relay.flows.set()
            stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="x"), timeout=10)
            assert relay.connections == connections


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
def test_no_proxy_is_asked_for_this_machine(port, monkeypatch, variable):
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for host in ("127.0.0.1", "localhost"):
        probe(f"{host}:{port[0]}", OPEN)
    with pytest.raises(ChatError, match=f"the proxy that {variable} names"):
        probe("elsewhere.invalid:8001", OPEN)


@pytest.mark.parametrize(
    "url", ["localhost", "http://localhost:8001", "::1:8001", "", "host:port", "a b:1", "host:8001/v2"]
)
def test_what_is_no_address_is_refused(url):
    with pytest.raises(ChatError, match=r"INVALID_ARG: url: .* give host:port"):
        ChatClient(url, NO_RETRY)


@pytest.mark.parametrize("url", ["localhost:8001", "[::1]:8001", "unix:/run/it", "dns:///name:8001", "10.1.2.3:1"])
def test_addresses(url):
    ChatClient(url, NO_RETRY).close()
    assert is_near(url) == (url[0] in "l[u")
