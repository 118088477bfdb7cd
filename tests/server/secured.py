"""Servers with keys, tokens and certificates, and plain questions to them."""

from __future__ import annotations

import urllib.error
import urllib.request

import grpc
from stub_repository import QUICK, make_stub_repository
from tritonclient.grpc import service_pb2_grpc

from client.connection import open_channel
from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.launch import ServerProcess

ADMIN_KEY, TOKEN = "an-admin-key-of-some-length", "t0ken+/=.~_-with-all-signs=="
AT_MODEL = f"/v2/models/{PUBLIC_MODEL}"


def http(server, method, path, headers=()):
    """Status and body."""
    data = b"{}" if method == "POST" else None
    request = urllib.request.Request(server.addresses.http + path, data, dict(headers), method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def rpc(server, name, request, metadata=(), tls=None):
    """The words of the error; empty when it worked."""
    with open_channel(server.url, tls) as channel:
        try:
            getattr(service_pb2_grpc.GRPCInferenceServiceStub(channel), name)(request, metadata=metadata, timeout=5)
        except grpc.RpcError as error:
            return error.details()
    return ""


def own_server(tmp_path_factory, *options, addresses=None):
    return ServerProcess(make_stub_repository(tmp_path_factory.mktemp("own")), addresses, options=(*QUICK, *options))
