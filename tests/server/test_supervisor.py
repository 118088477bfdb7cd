"""The supervisor against a real tritonserver: what must survive, what must end, what must not be left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from awaiting import until
from stub_repository import QUICK, make_stub_repository

from runtime.supervisor import shared_memory
from runtime.supervisor.config import PUBLIC_MODEL
from runtime.supervisor.errors import StartFailed
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.ports import free_addresses
from runtime.supervisor.process import children, members
from runtime.supervisor.watch import is_stub, model_of

RESTART_S = 120.0


def tritonserver(server):
    (child,) = children(server.pid)
    return child


def regions(out):
    return shared_memory.regions((out / "run" / shared_memory.PREFIX_FILE).read_text())


@pytest.fixture
def out(triton, tmp_path):
    return make_stub_repository(tmp_path / "out")


def test_lost_stub_heartbeat_and_server_are_restarted_and_stop_leaves_nothing(out):
    with ServerProcess(out, options=(*QUICK, "--heartbeat=4", "--quick-failures=9")) as server:
        assert server.ready(PUBLIC_MODEL)
        assert urllib.request.urlopen(server.addresses.metrics_url).status == 200
        first = tritonserver(server)
        (stub,) = [child for child in children(first.pid) if is_stub(child)]
        assert model_of(stub) == PUBLIC_MODEL
        assert regions(out)

        os.kill(stub.pid, signal.SIGKILL)
        server.wait_ready(RESTART_S, announcements=2)
        assert f"lost: stub of {PUBLIC_MODEL}" in server.log()
        assert not members(first.pid)

        second = tritonserver(server)
        os.kill(second.pid, signal.SIGKILL)
        server.wait_ready(RESTART_S, announcements=3)
        assert "tritonserver was killed by signal 9" in server.log()

        third = tritonserver(server)
        (stub,) = [child for child in children(third.pid) if is_stub(child)]
        until((out / "run" / "heartbeat").exists)
        os.kill(stub.pid, signal.SIGSTOP)  # a loop that hangs: its process lives
        server.wait_ready(RESTART_S, announcements=4)
        assert re.search("was stopped for|heartbeat of the frame loop stood still", server.log())

        last, left = tritonserver(server), regions(out)
        assert server.stop() == 0
        assert not members(last.pid)
        assert not any(region.exists() for region in left)
        assert not (out / "run" / shared_memory.PREFIX_FILE).exists()


def test_a_killed_supervisor_takes_its_server_along_and_the_next_one_sweeps_up(out):
    with ServerProcess(out, options=QUICK) as server:
        child, left = tritonserver(server), regions(out)
        server.kill()
        until(lambda: not members(child.pid), 30.0)
    with ServerProcess(out, addresses=server.addresses, options=QUICK):
        assert not any(region.exists() for region in left)


def test_too_many_quick_failures_end_the_supervisor(out):
    with ServerProcess(out, options=(*QUICK, "--quick-failures=1")) as server:
        child, left = tritonserver(server), regions(out)
        os.kill(child.pid, signal.SIGKILL)
        assert server._process.wait(RESTART_S) == 1
        assert "was lost 1 times in a row, last: tritonserver was killed by signal 9" in server.tail()
        assert not members(child.pid)
        assert not any(region.exists() for region in left)


def test_a_stop_during_the_start_is_obeyed(out):
    model = out / "model_repository" / PUBLIC_MODEL / "1" / "model.py"
    model.write_text("import time\ntime.sleep(60)\n")
    addresses = free_addresses()
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "runtime.supervisor", f"--out={out}", *QUICK, "--stop=1"]
        + [f"--{name.replace('_', '-')}={port}" for name, port in addresses.ports().items()],
        stderr=subprocess.DEVNULL,
    )
    until(lambda: any(children(child.pid) for child in children(supervisor.pid)))
    (child,) = children(supervisor.pid)
    supervisor.send_signal(signal.SIGINT)
    assert supervisor.wait(RESTART_S) == 0
    assert not members(child.pid)


def test_a_model_that_cannot_be_loaded_is_one_clear_failure(out):
    (out / "model_repository" / PUBLIC_MODEL / "1" / "model.py").write_text("raise ValueError('a broken model')\n")
    with pytest.raises(StartFailed, match="a broken model"):
        ServerProcess(out, options=QUICK).start()


@pytest.mark.parametrize("name", ["grpc_port", "http_port", "metrics_port"])
def test_a_taken_port_is_named_with_its_remedy(out, name):
    addresses = free_addresses()
    with socket.create_server((addresses.host, addresses.ports()[name])):
        began = time.monotonic()
        with pytest.raises(StartFailed) as caught:
            ServerProcess(out, addresses, options=QUICK).start()
    assert f"{name}: {addresses.ports()[name]} on 127.0.0.1 cannot be used" in str(caught.value)
    assert f"make serve {name.upper()}=" in str(caught.value)
    assert time.monotonic() - began < 60, "at once, not when a server gave up"


def test_a_folder_is_served_once(stub_server):
    with pytest.raises(StartFailed, match=f"is being served by process {stub_server.pid}"):
        ServerProcess(stub_server.out, options=QUICK).start()
