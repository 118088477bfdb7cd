"""Who may do what, on real servers: restricted endpoints, token, TLS, addresses."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from certificates import make_certificates
from stub_repository import QUICK, make_stub_repository
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from client import NO_RETRY, AccessDenied, AsyncChatClient, ChatClient, ChatError, ServerLost, Tls, token_headers
from client.access import Access
from client.connection import open_channel
from client.doctor.deployment import check_server
from client.perf.analyzer_install import find_analyzer
from runtime.headers import ADMIN_HEADER, GRPC_PREFIX
from runtime.server.config import PUBLIC_MODEL, Addresses
from runtime.server.errors import StartFailed
from runtime.server.launch import ServerProcess
from runtime.server.ports import free_addresses
from runtime.server.process import children, members

ADMIN_KEY, TOKEN = "an-admin-key-of-some-length", "t0ken+/=.~_-with-all-signs=="
AT_MODEL = f"/v2/models/{PUBLIC_MODEL}"
# What must be refused by default: the ways to unload, to map memory, to write files, to change the log.
HTTP_RESTRICTED = {
    "repository index": ("POST", "/v2/repository/index"),
    "repository load": ("POST", "/v2/repository/models/none/load"),
    "repository unload": ("POST", "/v2/repository/models/none/unload"),
    "shared memory status": ("GET", "/v2/systemsharedmemory/status"),
    "shared memory register": ("POST", "/v2/systemsharedmemory/region/r/register"),
    "shared memory unregister": ("POST", "/v2/systemsharedmemory/unregister"),
    "cuda memory status": ("GET", "/v2/cudasharedmemory/status"),
    "cuda memory register": ("POST", "/v2/cudasharedmemory/region/r/register"),
    "cuda memory unregister": ("POST", "/v2/cudasharedmemory/unregister"),
    "trace setting": ("GET", "/v2/trace/setting"),
    "trace change": ("POST", "/v2/trace/setting"),
    "trace of a model": ("POST", f"{AT_MODEL}/trace/setting"),
    "log": ("GET", "/v2/logging"),
    "log change": ("POST", "/v2/logging"),
}
GRPC_RESTRICTED = {
    "RepositoryIndex": pb.RepositoryIndexRequest(),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="none"),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="none"),
    "SystemSharedMemoryStatus": pb.SystemSharedMemoryStatusRequest(),
    "SystemSharedMemoryRegister": pb.SystemSharedMemoryRegisterRequest(name="r", key="/none", byte_size=4),
    "SystemSharedMemoryUnregister": pb.SystemSharedMemoryUnregisterRequest(),
    "CudaSharedMemoryStatus": pb.CudaSharedMemoryStatusRequest(),
    "CudaSharedMemoryRegister": pb.CudaSharedMemoryRegisterRequest(name="r"),
    "CudaSharedMemoryUnregister": pb.CudaSharedMemoryUnregisterRequest(),
    "TraceSetting": pb.TraceSettingRequest(),
    "LogSettings": pb.LogSettingsRequest(),
}
# What clients, perf_analyzer and load balancers ask for.
HTTP_OPEN = ("/v2/health/live", "/v2/health/ready", f"{AT_MODEL}/ready", "/v2", AT_MODEL, f"{AT_MODEL}/config",
             f"{AT_MODEL}/stats")  # fmt: skip
RESTRICTED = "restricted"
RESTART_S = 20.0
KEYS = ((GRPC_PREFIX + ADMIN_HEADER, ADMIN_KEY),)


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


def listening(server):
    """Address and port of every socket that a process of the server listens on."""
    pids = [server.pid, *members(server.pid)]
    pids += [pid for child in children(server.pid) for pid in members(child.pid)]
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            inodes |= set(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                words = b"".join(struct.pack("<I", int(address[i : i + 8], 16)) for i in range(0, len(address), 8))
                family = socket.AF_INET if len(words) == 4 else socket.AF_INET6
                found.add((socket.inet_ntop(family, words).removeprefix("::ffff:"), int(port, 16)))
    return found


@pytest.fixture(scope="module")
def secrets_(tmp_path_factory):
    folder = make_certificates(tmp_path_factory.mktemp("secrets"))
    (folder / "token").write_text(TOKEN + "\n")
    (folder / "admin").write_text(ADMIN_KEY + "\n")
    return folder


def own_server(tmp_path_factory, *options, addresses=None):
    return ServerProcess(make_stub_repository(tmp_path_factory.mktemp("own")), addresses, options=(*QUICK, *options))


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


# --- restricted endpoints


@pytest.mark.parametrize("name", HTTP_RESTRICTED)
def test_http_endpoints_need_the_admin_key(stub_server, guarded, name):
    method, path = HTTP_RESTRICTED[name]
    for headers in ({}, {ADMIN_HEADER: "a-guess-of-some-length"}):
        status, body = http(stub_server, method, path, headers)
        assert status == 403 and RESTRICTED in body
    assert http(guarded, method, path)[0] == 403
    assert http(guarded, method, path, {ADMIN_HEADER: ADMIN_KEY})[0] != 403


@pytest.mark.parametrize("name", GRPC_RESTRICTED)
def test_grpc_endpoints_need_the_admin_key(stub_server, guarded, tls, name):
    request = GRPC_RESTRICTED[name]
    assert RESTRICTED in rpc(stub_server, name, request)
    assert RESTRICTED in rpc(stub_server, name, request, ((GRPC_PREFIX + ADMIN_HEADER, "a-guess-of-some-length"),))
    assert RESTRICTED in rpc(guarded, name, request, tls=tls("client"))
    assert RESTRICTED not in rpc(guarded, name, request, KEYS, tls("client"))


def test_what_clients_need_is_open(stub_server):
    assert {path: http(stub_server, "GET", path)[0] for path in HTTP_OPEN} == dict.fromkeys(HTTP_OPEN, 200)
    for name, request in (
        ("ServerReady", pb.ServerReadyRequest()),
        ("ModelConfig", pb.ModelConfigRequest(name=PUBLIC_MODEL)),
        ("ModelStatistics", pb.ModelStatisticsRequest(name=PUBLIC_MODEL)),
    ):
        assert rpc(stub_server, name, request) == ""


def test_keys_are_neither_logged_nor_in_the_list_of_processes(guarded):
    (triton_process,) = children(guarded.pid)
    shown = " ".join(triton_process.command)
    assert "--grpc-restricted-protocol=model-repository" in shown
    for secret in (ADMIN_KEY, TOKEN):
        assert secret not in shown and secret not in guarded.log()


def test_restrictions_can_be_lifted_and_hold_in_a_new_life(triton, tmp_path_factory):
    with own_server(tmp_path_factory, "--restricted=trace") as server:
        (first,) = children(server.pid)
        for life in (1, 2):
            server.wait_ready(RESTART_S, announcements=life)
            assert http(server, "POST", "/v2/repository/index")[0] == 200
            assert http(server, "GET", "/v2/trace/setting")[0] == 403
            if life == 1:
                os.kill(first.pid, signal.SIGKILL)


# --- addresses


def test_nothing_listens_beyond_loopback(stub_server, guarded):
    for server in (stub_server, guarded):
        assert listening(server) == {("127.0.0.1", port) for port in server.addresses.ports().values()}
        assert "WARNING" not in server.log()


def test_only_grpc_with_tls_is_for_others(encrypted):
    ports, heard = encrypted.addresses.ports(), dict(reversed(pair) for pair in listening(encrypted))
    assert heard.pop(ports["grpc_port"]) in ("0.0.0.0", "::")  # gRPC hears both families where there are two
    assert heard == {ports[name]: "127.0.0.1" for name in ("http_port", "metrics_port")}
    assert "WARNING: 0.0.0.0: whoever reaches this address may use the server" in encrypted.log()


# --- TLS and the token


def ask(server, tls=None, headers=None, url=None):
    with ChatClient(url or server.url, NO_RETRY, tls=tls, headers=headers) as chat:
        return chat.ask(text='{"chunks": 2}', timeout=10).text


async def ask_aio(server, tls, headers):
    async with AsyncChatClient(server.url, NO_RETRY, tls=tls, headers=headers) as chat:
        return (await chat.ask(text='{"chunks": 2}', timeout=10)).text


@pytest.fixture
def tls(secrets_):
    """Certificates by the name of the client's own."""

    def make(own=None, ca="ca"):
        pair = (secrets_ / f"{own}.crt", secrets_ / f"{own}.key") if own else (None, None)
        return Tls(secrets_ / f"{ca}.crt" if ca else None, *pair)

    return make


def test_answers_over_tls(encrypted, guarded, tls):
    assert ask(encrypted, tls()) == "ä0 ä1 "
    assert ask(encrypted, tls(), url=f"localhost:{encrypted.addresses.grpc_port}") == "ä0 ä1 "
    assert ask(guarded, tls("client"), token_headers(TOKEN)) == "ä0 ä1 "
    assert asyncio.run(ask_aio(guarded, tls("client"), token_headers(TOKEN))) == "ä0 ä1 "


@pytest.mark.parametrize("ca", ["stranger", None])
def test_a_server_of_an_unknown_authority_is_not_trusted(encrypted, tls, ca):
    with pytest.raises(AccessDenied, match=r"tls: .*not signed by a known authority; give its authority"):
        ask(encrypted, tls(ca=ca))


def test_tls_to_a_plain_server_says_so(stub_server, tls):
    with pytest.raises(AccessDenied, match="does not speak TLS; leave tls out"):
        ask(stub_server, tls())


def test_plain_to_a_tls_server_says_so(encrypted):
    with pytest.raises(ServerLost, match="If it speaks TLS, give tls"):
        ask(encrypted)


@pytest.mark.parametrize("own", [None, "stranger"])
def test_a_missing_or_strange_certificate_of_the_client(guarded, tls, own):
    with pytest.raises(ServerLost, match="a certificate if it asks for one"):
        ask(guarded, tls(own), token_headers(TOKEN))


@pytest.mark.parametrize("headers", [{}, token_headers("wrong"), {"authorization": f"Bearer {TOKEN}"}])
def test_a_missing_or_wrong_token(guarded, tls, headers):
    with pytest.raises(AccessDenied, match=r"UNAUTHENTICATED: authorization: .*; give the right one"):
        ask(guarded, tls("client"), headers)
    with pytest.raises(AccessDenied):
        asyncio.run(ask_aio(guarded, tls("client"), headers))


def test_http_needs_the_token_too(guarded):
    generate = ("POST", f"{AT_MODEL}/generate")
    assert http(guarded, *generate)[0] == 403
    assert http(guarded, "GET", f"{AT_MODEL}/config")[0] == 403
    assert http(guarded, *generate, {"authorization": f"Bearer {TOKEN}"})[0] == 200
    assert http(guarded, "GET", f"{AT_MODEL}/ready")[0] == 200, "load balancers have no token"


def test_a_certificate_that_cannot_be_read(tmp_path):
    with pytest.raises(ChatError, match=r"INVALID_ARG: tls: .*nothing\.pem: No such file"):
        ChatClient("127.0.0.1:1", tls=Tls(tmp_path / "nothing.pem"))
    with pytest.raises(ValueError, match="tls: a certificate and its key belong together"):
        Tls(cert=tmp_path / "nothing.pem")


def test_a_certificate_that_the_server_cannot_use_is_named(triton, secrets_, tmp_path_factory):
    options = (f"--tls-cert={secrets_ / 'server.crt'}", f"--tls-key={secrets_ / 'client.key'}")
    with pytest.raises(StartFailed, match=r"INVALID_ARG: tls_cert: .*server\.crt.*give a PEM chain and its key"):
        own_server(tmp_path_factory, *options).start()


# --- commands


def options_of(secrets_, with_token=True):
    files = {"ca": "ca.crt", "cert": "client.crt", "key": "client.key"}
    words = [f"--{name}={secrets_ / file}" for name, file in files.items()]
    return [*words, f"--token={TOKEN}"] if with_token else words


def run(*words, **variables):
    environment = {**os.environ, **variables}
    return subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, timeout=60, env=environment)


def ports(server):
    return [f"--{name.replace('_', '-')}={port}" for name, port in server.addresses.ports().items()]


def test_the_command_line_with_token_and_certificates(guarded, secrets_, tmp_path):
    words = ("client", "--url", guarded.url, "--text", "{}", "--output-dir", str(tmp_path))
    done = run(*words, *options_of(secrets_, with_token=False), FUN_AUDIO_CHAT_TOKEN=TOKEN)
    assert (done.returncode, done.stderr) == (0, "")
    done = run(*words, *options_of(secrets_, with_token=False))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and done.stderr.startswith("UNAUTHENTICATED: ")
    done = run(*words, "--tls")
    assert done.returncode == 1 and done.stderr.count("\n") == 1, "gRPC's own log is not the user's"
    assert run(*words, "--header", "x-api-key").returncode == 2


def test_the_doctor_goes_in_or_says_why_not(guarded, tls):
    ways = {
        "ok": Access(tls("client"), token_headers(TOKEN)),
        "ca, --cert, --key, --token": Access(),
        "takes no request without its token": Access(tls("client")),
    }
    for words, access in ways.items():
        found = {finding.name: finding for finding in check_server(guarded.addresses, guarded.out, access)}
        assert found["server"].state == "ok"
        assert (found["access"].state == "ok") == (words == "ok")
        assert words in found["access"].lines() or words == "ok"


@pytest.mark.parametrize("tool", ["load", "analyzer"])
def test_both_load_generators_go_in(guarded, secrets_, tool):
    if tool == "analyzer":
        try:
            find_analyzer()
        except ChatError as error:
            pytest.skip(str(error))
    levels = ["--rates", "", "--concurrency", "2", "--requests", "4", *(["--listeners", ""] if tool == "load" else [])]
    done = run("client.perf", tool, "--out", str(guarded.out), *ports(guarded), *levels, *options_of(secrets_))
    assert done.returncode == 0, done.stderr
    (level,) = json.loads(done.stdout.splitlines()[-1])["levels"]
    assert (level["requests"], level["errors"]) == (4, 0), level["error_kinds"]
