"""The nginx configuration of the documentation, with a real nginx (on PATH, or variable NGINX_BINARY)."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from awaiting import until
from certificates import make_certificates
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from client import NO_RETRY, AccessDenied, ChatClient, ServerError, Tls, token_headers
from client.connection import open_channel
from client.protocol.wire import KEY_HEADER
from runtime.supervisor.config import Addresses
from runtime.supervisor.ports import free_addresses

CONFIG = Path(__file__).parents[2] / "docs" / "proxy.nginx.conf"
TOKEN = "the-token-of-alice"
OWN_FOLDERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")  # nginx of a test has no system folders


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def configured(folder, certificates, server, port):
    """The documented configuration, moved to this folder and these ports."""
    text, at = CONFIG.read_text("utf-8"), Addresses()
    moves = {
        "\nhttp {": "\nhttp {" + "".join(f" {name}_temp_path {folder / name};" for name in OWN_FOLDERS),
        "listen 443": f"listen 127.0.0.1:{port}",
        at.grpc: server.addresses.grpc,
        at.http.removeprefix("http://"): server.addresses.http.removeprefix("http://"),
        "/etc/nginx/server.": f"{certificates / 'server'}.",
        "/etc/nginx/tokens.conf": str(folder / "tokens.conf"),
    }
    for old, new in moves.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def proxy(stub_server, certificates, tmp_path_factory):
    """Its host:port."""
    nginx = shutil.which(os.environ.get("NGINX_BINARY", "nginx"))
    if nginx is None:
        pytest.skip("no nginx here: install it or set NGINX_BINARY")
    folder, port = tmp_path_factory.mktemp("nginx"), free_addresses().grpc_port
    (folder / "nginx.conf").write_text(configured(folder, certificates, stub_server, port))
    (folder / "tokens.conf").write_text(f'"Bearer {TOKEN}" "alice";\n')
    log = folder / "error.log"
    options = ["-p", str(folder), "-c", "nginx.conf", "-e", str(log), "-g", f"daemon off; pid {folder}/pid;"]
    process = subprocess.Popen([nginx, *options], stderr=subprocess.DEVNULL)
    try:
        wait_for(port, log)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def wait_for(port, log):
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


@pytest.fixture
def alice(proxy, certificates):
    with ChatClient(proxy, NO_RETRY, tls=Tls(certificates / "ca.crt"), headers=token_headers(TOKEN)) as chat:
        yield chat


def test_a_stream_through_the_proxy_has_the_callers_name(proxy, certificates):
    headers = {**token_headers(TOKEN), KEY_HEADER: "mallory", "triton_grpc_error": "true"}
    with ChatClient(proxy, NO_RETRY, tls=Tls(certificates / "ca.crt"), headers=headers) as chat:
        *_, last = chat.stream(text='{"chunks": 3}', timeout=10)
    assert last.stats["parameters"] == {KEY_HEADER: "alice"}


def test_errors_and_cancels_pass(alice, stub_server):
    with pytest.raises(ServerError, match="NOT_FOUND: audio"):
        alice.ask(text='{"error": "NotFound"}', timeout=10)
    mark = stub_server.out / "run" / "cancelled"
    mark.unlink(missing_ok=True)
    stream = alice.stream(text='{"chunks": 300, "delay_s": 0.02}')
    next(stream)
    stream.close()
    until(mark.exists, what="the model saw no cancellation")


@pytest.mark.parametrize("headers", [{}, token_headers("another-token")])
def test_without_a_token_nobody_gets_in(proxy, certificates, headers):
    refused = pytest.raises(AccessDenied, match="UNAUTHENTICATED: authorization")
    with ChatClient(proxy, NO_RETRY, tls=Tls(certificates / "ca.crt"), headers=headers) as chat, refused:
        chat.ask(text="{}", timeout=10)


def test_only_what_clients_need_is_reachable(proxy, certificates):
    context = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    assert urllib.request.urlopen(f"https://{proxy}/v2/models/fun_audio_chat/ready", context=context).status == 200
    for path in ("/v2/repository/index", "/v2/models/fun_audio_chat/generate", "/metrics"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"https://{proxy}{path}", context=context)
    with open_channel(proxy, Tls(certificates / "ca.crt")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest(), timeout=5).ready
        with pytest.raises(grpc.RpcError):
            stub.RepositoryIndex(pb.RepositoryIndexRequest(), timeout=5)
