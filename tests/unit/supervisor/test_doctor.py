"""The doctor's checks: what each finds and which remedy it names."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from client.access import OPEN
from runtime.supervisor.config import Addresses
from runtime.supervisor.ports import free_addresses
from scripts.doctor import __main__ as cli
from scripts.doctor import deployment, machine
from scripts.doctor.finding import FAIL, OK, WARN, Finding


def test_a_fault_without_a_remedy_cannot_be_written():
    with pytest.raises(ValueError, match="fix"):
        Finding("x", FAIL, "broken")


def test_this_environment_is_sound():
    findings = [machine.check_python(), *machine.check_libraries()]
    assert [finding for finding in findings if finding.state == FAIL] == []


def test_missing_broken_and_wrong_libraries(monkeypatch):
    monkeypatch.setattr(machine, "LIBRARIES", {"no-such-library": "x", "numpy": "numpy", "pytest": "no.such.module"})
    monkeypatch.setattr(importlib.metadata, "version", _version)
    found = {finding.name: finding for finding in machine.check_libraries()}
    assert found["no-such-library"].fix == "make setup"
    assert "0 bytes" in found["numpy"].found and "numpy<2" in found["numpy"].fix
    assert "does not load" in found["pytest"].found and found["pytest"].state == FAIL


def _version(name):
    if name == "no-such-library":
        raise importlib.metadata.PackageNotFoundError(name)
    return "2.1.0"


def test_a_gpu_is_missed_only_where_one_is_needed(monkeypatch):
    monkeypatch.setattr(machine, "gpus", list)
    assert machine.check_gpu("cpu").state == OK
    assert machine.check_gpu("cuda").state == FAIL and "driver" in machine.check_gpu("cuda").fix


@pytest.mark.parametrize(("free", "state"), [(100, OK), (5, WARN), (0.1, FAIL)])
def test_disk(monkeypatch, tmp_path, free, state):
    usage = type("Usage", (), {"free": free * machine.GIB})
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    assert machine.check_disk(tmp_path / "not" / "there").state == state


@pytest.mark.parametrize(("free", "state"), [(1, OK), (0.06, FAIL)])
def test_shared_memory(monkeypatch, free, state):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: type("Usage", (), {"free": free * machine.GIB}))
    assert machine.check_shared_memory().state == state


@pytest.mark.slow
def test_engines_ports_and_server_name_their_commands(tmp_path):
    addresses, out = free_addresses(), tmp_path / "built"
    assert deployment.check_engines(out).fix == f"make build-engines OUT={out}"
    out.mkdir()
    assert "make build-engines" in deployment.check_engines(out).fix
    ports, server = deployment.check_server(addresses, out)
    assert (ports.state, server.state, server.fix) == (OK, WARN, f"make serve OUT={out}")
    with socket.create_server((addresses.host, addresses.grpc_port)):
        ports, _ = deployment.check_server(addresses, out)
    assert ports.state == FAIL and "GRPC_PORT=" in ports.fix


def test_the_command_counts_faults(monkeypatch, capsys):
    findings = [Finding("a", OK, "fine"), Finding("b", FAIL, "broken", "mend it")]
    monkeypatch.setattr(cli, "examine", lambda out, addresses, access: iter(findings))
    assert cli.main([]) == 1
    assert capsys.readouterr().out.endswith("FAIL  b: broken\n       fix: mend it\n1 fault\n")
    assert cli.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)[1]["fix"] == "mend it"


def make_doctor(python, tmp_path):
    command = ["make", "-s", "doctor", f"VENV={tmp_path}/none", f"PYTHON={python}", f"OUT={tmp_path}/none"]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3])


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_without_an_environment_it_says_what_to_run(tmp_path):
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys._base_executable} -S "$@"\n')
    bare.chmod(0o755)
    done = make_doctor(bare, tmp_path)
    assert "FAIL  environment: no .venv; " in done.stdout and "\n       fix: make setup\n" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    done = make_doctor(tmp_path / "nothing", tmp_path)
    assert done.stderr.startswith(f"make doctor: {tmp_path}/nothing is not there or older") and done.returncode


def test_a_running_server_is_seen_without_grpc(monkeypatch):
    monkeypatch.setitem(sys.modules, "client.probe", None)
    found = deployment.check_access("127.0.0.1:1", OPEN)
    assert found.state == FAIL and found.fix == "make setup"


@pytest.mark.slow
def test_it_runs_where_a_library_is_broken(tmp_path):
    (tmp_path / "soxr.py").write_text("raise ImportError('broken on purpose')")
    at = Addresses()
    program = [sys.executable, "-m", "scripts.doctor", "--out", str(tmp_path), f"--grpc-port={at.grpc_port}"]
    done = subprocess.run(
        program,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        cwd=Path(__file__).parents[3],
    )
    assert done.returncode == 1 and "soxr: does not load" in done.stdout, done.stderr
