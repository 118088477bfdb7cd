"""Batches, the doctor and perf_analyzer as processes against the stub server."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from awaiting import until

from benchmarks.perf.analyzer_install import find_analyzer
from client import ChatError


def run(*words, **options):
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=120, **options)


def ports(server):
    return [f"--{name.replace('_', '-')}={port}" for name, port in server.addresses.ports().items()]


def batch(server, tmp_path, source, *more):
    at = ("--url", server.url, "--output-dir", str(tmp_path / "results"))
    return run("-m", "client", "batch", str(source), *at, *more)


def test_a_batch_goes_on_where_it_stopped(stub_server, tmp_path):
    results = tmp_path / "results"
    lines = [{"id": f"q{n}", "text": json.dumps({"chunks": 2})} for n in range(6)]
    lines.insert(3, {"id": "bad", "text": json.dumps({"error": "NotFound"})})
    manifest = tmp_path / "questions.jsonl"
    manifest.write_text("\n".join(map(json.dumps, lines)))
    done = batch(stub_server, tmp_path, manifest, "--concurrency", "3")
    assert done.returncode == 1 and "1 failed" in done.stderr and "6 answered" in done.stdout
    assert {path.suffix for path in results.glob("q0.*")} == {".txt", ".wav", ".json"}
    assert json.loads((results / "q0.json").read_text())["text"] == "ä0 ä1 "
    assert json.loads((results / "failed.jsonl").read_text())["error"].startswith("NOT_FOUND: audio")
    (results / "q3.json").unlink()
    manifest.write_text(manifest.read_text().replace("NotFound", "Nothing").replace('\\"error\\"', '\\"ok\\"'))
    done = batch(stub_server, tmp_path, manifest)
    assert done.returncode == 0 and "2 answered" in done.stdout and "5 were there already" in done.stdout
    assert not (results / "failed.jsonl").exists()
    manifest.write_text(manifest.read_text().replace('\\"chunks\\": 2', '\\"chunks\\": 1'))
    done = batch(stub_server, tmp_path, manifest)
    assert done.returncode == 1 and done.stderr.startswith("ALREADY_EXISTS: output-dir: ") and "q0.json" in done.stderr


def test_an_interrupted_batch_keeps_what_is_complete(stub_server, tmp_path):
    lines = [{"id": f"q{n}", "text": json.dumps({"chunks": 4, "delay_s": 0.1 + n})} for n in range(4)]
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    words = ["-m", "client", "batch", str(tmp_path / "questions.jsonl"), "--url", stub_server.url]
    process = subprocess.Popen(
        [sys.executable, *words, "--output-dir", str(tmp_path / "results")], stderr=subprocess.PIPE, text=True
    )
    until((tmp_path / "results" / "q0.json").exists, 60.0)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=20)
    assert process.returncode == 130 and "goes on where it stopped" in error
    assert sorted(path.name for path in (tmp_path / "results").glob("*.json")) == ["q0.json"]


def test_the_doctor_sees_a_running_server(stub_server):
    done = run("-m", "scripts.doctor", "--out", str(stub_server.out), *ports(stub_server), "--json")
    found = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert found["server"]["state"] == "ok" and stub_server.url in found["server"]["found"]
    assert found["engines"]["state"] == "FAIL" and "make build-engines" in found["engines"]["fix"]  # the stub has none


@pytest.fixture(scope="module")
def perf_analyzer():
    try:
        return find_analyzer()
    except ChatError as error:
        pytest.skip(str(error))


def test_a_sweep_with_the_real_perf_analyzer(stub_server, perf_analyzer, tmp_path):
    saved = tmp_path / "run.json"
    words = ["-m", "benchmarks.perf", "analyzer", "--out", str(stub_server.out), *ports(stub_server)]
    levels = ["--concurrency", "2", "--rates", "6", "--requests", "8", "--save", str(saved)]
    sets = ["--parameters", "seed=1,top_p=0.5", "--parameters", "mode=s2t"]
    done = run(*words, *levels, *sets)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout.splitlines()[-1])["levels"]
    assert [level["load"] for level in made] == ["concurrency 2", "request_rate 6"] * 2
    for level in made:
        assert (level["requests"], level["errors"]) == (8, 0), level["error_kinds"]
        assert set(level["first_audio_ms"]) == {"p50", "p90", "p95", "p99"}
        assert 0 < level["first_audio_ms"]["p50"] <= level["total_ms"]["p50"] + 1e-6
    assert json.loads(saved.read_text())["tool"] == "perf_analyzer"


def test_a_server_that_cannot_be_reached_is_one_line(perf_analyzer, tmp_path, stub_server):
    addresses = stub_server.addresses
    words = ["-m", "benchmarks.perf", "analyzer", "--out", str(tmp_path / "none"), "--grpc-port", "1"]
    done = run(*words, "--http-port", str(addresses.http_port), "--metrics-port", str(addresses.metrics_port))
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("UNAVAILABLE: server")
