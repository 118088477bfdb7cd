"""SIGTERM with real streams: short answers finish, long ones get a typed error, and nothing is left behind."""

import os
import signal
import threading
import time

import pytest
from awaiting import until
from faulty import ENDLESS, QUICK, SPOKEN, attempt, faulty_copy
from harness import scrape

from client import ServerError
from runtime.supervisor import shared_memory
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.process import children, members

GRACE_S = 8.0


def start(url, request, outcomes):
    thread = threading.Thread(target=lambda: outcomes.append(attempt(url, **request)))
    thread.start()
    return thread


def accepted(server, count):
    """Waits until so many requests were let in, be they over or not, beside the one of the warm-up."""
    until(lambda: scrape(server)['requests_total{mode="s2s"}'] == 1 + count)


def served(built, out, *options):
    return ServerProcess(faulty_copy(built, out), options=(*QUICK, *options))


def test_a_stop_lets_answers_finish_and_ends_the_rest_with_a_typed_error(built, tmp_path, record):
    short, long = [], []
    with served(built, tmp_path / "cpu", f"--drain={GRACE_S}") as server:
        (triton,) = children(server.pid)
        threads = [start(server.url, ENDLESS, long) for _ in range(2)]
        accepted(server, 2)
        threads.append(start(server.url, SPOKEN | {"max_tokens": 10}, short))
        accepted(server, 3)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        until((server.out / "run" / "drain").exists)
        refused = attempt(server.url, **SPOKEN)
        for thread in threads:
            thread.join(GRACE_S + 5)
        code = server._process.wait(20)
        took = time.monotonic() - began
        assert code == 0 and not members(triton.pid)
    assert short[0].answer is not None and short[0].answer.finish
    assert [outcome.error.code for outcome in long] == ["UNAVAILABLE"] * 2
    assert all(isinstance(outcome.error, ServerError) for outcome in long), [str(o.error) for o in long]
    assert all("stopped before this answer was complete" in str(outcome.error) for outcome in long)
    assert isinstance(refused.error, ServerError) and "is stopping" in str(refused.error)
    record.add(
        f"SIGTERM with 3 live answers, grace {GRACE_S:g} s",
        "1 finished, 2 ended UNAVAILABLE: server, a new one was refused; exit code 0, no process left",
        took,
    )


@pytest.mark.long
def test_a_second_signal_hurries(built, tmp_path, record):
    long = []
    with served(built, tmp_path / "cpu", "--drain=60") as server:
        thread = start(server.url, ENDLESS, long)
        accepted(server, 1)
        os.kill(server.pid, signal.SIGTERM)
        until((server.out / "run" / "drain").exists)
        began = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        assert server._process.wait(20) == 0
        took = time.monotonic() - began
        thread.join(5)
    assert long[0].error.code == "UNAVAILABLE" and isinstance(long[0].error, ServerError)
    record.add("second SIGTERM, grace 60 s", "the live answer ended UNAVAILABLE: server; exit code 0", took)


def test_a_stop_while_the_models_load(built, tmp_path, record):
    server = served(built, tmp_path / "cpu", "--stop=3")
    starting = threading.Thread(target=lambda: _ignore_failure(server))
    starting.start()
    until(lambda: "loaded token2wav" in server.log(), 60.0)  # the public model loads now
    began = time.monotonic()
    os.kill(server.pid, signal.SIGTERM)
    assert server._process.wait(20) == 0
    starting.join()
    record.add("SIGTERM while the models load", "exit code 0, no process left", time.monotonic() - began)


def _ignore_failure(server):
    try:
        server.start()
    except Exception as error:  # it was stopped
        assert "exited with code 0" in str(error)


@pytest.mark.long
def test_a_killed_supervisor_leaves_nothing(built, tmp_path, record):
    out = tmp_path / "cpu"
    with served(built, out) as server:
        (triton,) = children(server.pid)
        prefix = (out / "run" / shared_memory.PREFIX_FILE).read_text()
        began = time.monotonic()
        server.kill()
        while members(triton.pid):
            assert time.monotonic() - began < 60
            time.sleep(0.02)
        took = time.monotonic() - began
    with ServerProcess(out, addresses=server.addresses, options=QUICK):
        assert not shared_memory.regions(prefix), "the next one sweeps up"
    record.add("kill -9 of the supervisor", "every process was gone; the next start removed its shared memory", took)
