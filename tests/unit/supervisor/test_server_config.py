"""Configuration, command line, control files and watching, without a tritonserver."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime.errors import AlreadyServed, BuildError
from runtime.run_folder import ModelRunFolder, RunFolder
from runtime.supervisor import shared_memory
from runtime.supervisor.__main__ import config_of, parser
from runtime.supervisor.bundle import TritonInstall, find_install
from runtime.supervisor.command import command, environment, read_options
from runtime.supervisor.config import Addresses, Patience, ServerConfig
from runtime.supervisor.errors import InstallError
from runtime.supervisor.flag import Flag
from runtime.supervisor.process import children, end_group, members, start_group
from runtime.supervisor.watch import Watch

STAMP_S = 0.05  # stamps of files move in steps, of 10 ms at most
INSTALL = TritonInstall(("tritonserver",), Path("backends"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"host": ""}, "host: ''"),
        ({"grpc_port": 0}, "grpc_port: 0"),
        ({"http_port": 70000}, "http_port: 70000"),
        ({"http_port": 8001}, "are not all different"),
    ],
)
def test_wrong_addresses_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        Addresses(**values)


@pytest.mark.parametrize("values", [{"poll": 0.0}, {"drain": -1.0}, {"quick_failures": 0}])
def test_wrong_patience_is_named(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"{name}: "):
        Patience(**values)


def test_backoff_doubles_up_to_its_bound():
    patience = Patience(backoff=1.0, max_backoff=5.0)
    assert [patience.delay(failures) for failures in range(1, 6)] == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_command_line_reaches_the_configuration(tmp_path):
    options = parser().parse_args(["--out", str(tmp_path), "--grpc-port", "9", "--drain", "3", "--triton-arg=--id=x"])
    config = config_of(options)
    assert (config.addresses.grpc_port, config.patience.drain, config.triton_args) == (9, 3.0, ("--id=x",))
    assert config.verify


def test_server_command_is_loopback_and_without_gpu_metrics_on_cpu(tmp_path):
    line = command(ServerConfig(tmp_path), INSTALL, {"target": "cpu"}, "fac_x_", "k")
    assert {"--http-address=127.0.0.1", "--grpc-address=127.0.0.1", "--metrics-address=127.0.0.1"} <= set(line)
    assert "--allow-gpu-metrics=false" in line
    assert "--allow-gpu-metrics=true" in command(ServerConfig(tmp_path), INSTALL, {"target": "cuda"}, "fac_x_", "k")
    assert "--backend-config=python,shm-region-prefix-name=fac_x_" in line


def test_threads_come_from_the_options(tmp_path):
    assert environment(INSTALL, {})["OMP_NUM_THREADS"] == "1"
    assert environment(INSTALL, {"threads": 4})["OMP_NUM_THREADS"] == "4"
    with pytest.raises(BuildError, match="threads: 'many'"):
        environment(INSTALL, {"threads": "many"})
    (tmp_path / "options.json").write_text("[1]")
    with pytest.raises(BuildError, match="holds a list"):
        read_options(ServerConfig(tmp_path))


def test_named_binary_must_exist(monkeypatch):
    monkeypatch.setenv("TRITONSERVER", "/nowhere/tritonserver")
    with pytest.raises(InstallError, match="/nowhere/tritonserver"):
        find_install()
    monkeypatch.setenv("TRITONSERVER", sys.executable)
    assert find_install().command == (sys.executable,)


def test_one_supervisor_per_folder(tmp_path):
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.acquire()
    with pytest.raises(AlreadyServed, match=str(os.getpid())):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_drained_believes_a_fresh_zero_only(tmp_path):
    run = RunFolder(tmp_path)
    run.acquire()
    run.begin_drain(30.0)
    assert run.drained()  # a model that does not count has nothing to wait for
    live = run.path / "live"
    live.write_text("2")
    assert not run.drained()
    live.write_text("")
    assert not run.drained()
    live.write_text("0")
    assert run.drained()
    os.utime(live, (0, 0))  # whatever clock the stamp comes from
    assert run.drained()
    run.begin_drain(0.0)
    assert not run.drained()
    run.release()


def test_a_zero_that_a_full_disk_left_there_ends_no_live_stream(tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    run.acquire()
    model_end = ModelRunFolder(run.path)
    model_end.show(0)
    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        model_end.show(1)
        run.begin_drain(30.0)
        time.sleep(1.0)
        model_end.show(1)
        assert not run.drained()
    model_end.show(1)
    assert not run.drained()
    model_end.show(0)
    assert run.drained()
    run.begin_drain(0.0)
    assert not run.drained()
    time.sleep(STAMP_S)
    model_end.show(0)  # again, at every poll of a drain
    assert run.drained()
    run.release()


def test_heartbeat_is_judged_by_our_clock(tmp_path):
    run, now = RunFolder(tmp_path), [0.0]
    run.acquire()
    server = subprocess.Popen(["sleep", "60"])
    try:
        watch = Watch(server, run, heartbeat_s=2.0, clock=lambda: now[0])
        now[0] = 100.0
        assert watch.loss() is None  # no file, not watched
        (run.path / "heartbeat").touch()
        os.utime(run.path / "heartbeat", (0, 0))  # however old the stamp looks
        assert watch.loss() is None
        now[0] = 103.0
        assert "stood still for 3.0 s" in (watch.loss() or "")
    finally:
        server.kill()
        server.wait()
        run.release()


def test_a_group_ends_with_its_grandchildren():
    leader = start_group(["bash", "-c", "trap '' TERM; sleep 60 & sleep 60"], {}, None)
    while len(children(leader.pid)) < 2:
        time.sleep(0.01)
    end_group(leader, 0.1)
    assert leader.returncode == -9
    assert not members(leader.pid)


def test_fork_handlers_of_other_libraries_do_not_reach_the_child():
    """gRPC's abort it now and then, when the process that starts a server has channels open."""
    program = (
        "import os; from runtime.supervisor.process import start_group; "
        "os.register_at_fork(after_in_child=os.abort); "
        "raise SystemExit(start_group(['sh', '-c', 'exit 7'], {}, None).wait())"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7


@pytest.mark.alone
def test_a_flag_is_noticed_while_it_is_waited_for():
    flag = Flag()
    signal.signal(signal.SIGALRM, lambda *_: flag.set())
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    began = time.monotonic()
    assert flag.wait(5) and time.monotonic() - began < 4
    assert flag.is_set() and not Flag().wait(0.01)


def test_a_full_disk_stops_no_drain(tmp_path, monkeypatch):
    """New requests are refused all the same; the model is not told when the live ones have had their time."""
    run = RunFolder(tmp_path)
    run.acquire()
    monkeypatch.setattr(Path, "write_text", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    run.begin_drain(5.0)
    model_end = ModelRunFolder(run.path)
    assert model_end.draining and not model_end.overdue
    run.release()


def test_only_our_own_regions_are_removed(tmp_path):
    shm, run = tmp_path / "shm", tmp_path / "run"
    shm.mkdir()
    run.mkdir()
    prefix = shared_memory.new_prefix(run)
    for name in (f"{prefix}_a", f"{prefix}_b", "fac_other", "foreign"):
        (shm / name).touch()
    assert shared_memory.remove_regions(run, shm) == 2
    (run / "shm_prefix").write_text("f")  # damaged: must not match everything
    assert shared_memory.remove_regions(run, shm) == 0
    assert sorted(path.name for path in shm.iterdir()) == ["fac_other", "foreign"]
