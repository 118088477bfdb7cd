"""Who may do what, on real servers: restricted endpoints, addresses."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from secured import ADMIN_KEY, AT_MODEL, TOKEN, http, own_server, rpc
from tritonclient.grpc import service_pb2 as pb

from client import ChatClient
from client.protocol.wire import ADMIN_HEADER, GRPC_PREFIX
from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.ports import free_addresses, is_local
from runtime.supervisor.process import children, members

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
RESTART_S = 120.0
KEYS = ((GRPC_PREFIX + ADMIN_HEADER, ADMIN_KEY),)


def listening(server):
    """Address and port of every socket that a process of the server listens on."""
    pids = [server.pid, *members(server.pid)]
    pids += [pid for child in children(server.pid) for pid in members(child.pid)]
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
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


@pytest.mark.skipif(not is_local("::1"), reason="no IPv6 here")
def test_an_ipv6_address_is_heard_on_all_ports(triton, tmp_path_factory):
    with own_server(tmp_path_factory, addresses=replace(free_addresses(), host="[::1]")) as server:
        assert listening(server) == {("::1", port) for port in server.addresses.ports().values()}
        with ChatClient(server.url) as chat:
            assert chat.ask(text='{"chunks": 2}').text == "ä0 ä1 "


def test_only_grpc_with_tls_is_for_others(encrypted):
    ports, heard = encrypted.addresses.ports(), dict(reversed(pair) for pair in listening(encrypted))
    assert heard.pop(ports["grpc_port"]) in ("0.0.0.0", "::")  # gRPC hears both families where there are two
    assert heard == {ports[name]: "127.0.0.1" for name in ("http_port", "metrics_port")}
    assert "WARNING: 0.0.0.0: everyone who reaches this address may use the server" in encrypted.log()
