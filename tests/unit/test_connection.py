"""Servers that are far away: every byte takes its time, and the first request gets through all the same."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.access import OPEN
from client.probe import probe

FAR_S = 0.3  # one way
CHUNK = 65_536


class Metadata(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Describes its model."""

    def ModelMetadata(self, request, context):
        return service_pb2.ModelMetadataResponse(name=request.name)


@pytest.fixture
def near():
    """The port of a server of gRPC alone."""
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Metadata(), server)
    yield server.add_insecure_port("127.0.0.1:0"), server.start()
    server.stop(None)


@pytest.fixture
def far(near):
    """An address behind which the server is ``FAR_S`` away."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_relay, args=(listener, near[0]), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def _relay(listener, port):
    while True:
        try:
            here, _ = listener.accept()
        except OSError:  # the test is over
            return
        there = socket.create_connection(("127.0.0.1", port))
        for ends in ((here, there), (there, here)):
            threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source, sink):
    try:
        while read := source.recv(CHUNK):
            time.sleep(FAR_S)
            sink.sendall(read)
    except OSError:
        pass
    sink.close()


def test_the_first_request_reaches_a_far_server(far):
    began = time.monotonic()
    probe(far, OPEN)
    assert time.monotonic() - began > 4 * FAR_S, "it was far: settings and answer, there and back"
