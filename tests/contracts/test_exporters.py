"""Every graph through the ONNX exporters of older releases: the serving image's torch is one of them."""

import json
import subprocess
import sys

import pytest

from builders import upstream
from builders.tensorrt.check.graphs import GRAPHS

COMMAND = ("-m", "builders.tensorrt.check")


@pytest.fixture(scope="module")
def running(fetched, tmp_path_factory):
    """One process per release, side by side."""
    made = {}
    for version, wheels in upstream.EXPORTERS.items():
        folder = fetched(wheels), tmp_path_factory.mktemp("graphs")
        command = [sys.executable, *COMMAND, "export", "--exporter", version, "--to", str(folder[1])]
        made[version] = folder, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    yield made
    for _, process in made.values():
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("version", list(upstream.EXPORTERS))
def test_all_graphs_are_exported(running, version):
    """Each is also run and compared with torch, as in a build."""
    (source, out), process = running[version]
    printed, errors = process.communicate(timeout=1800)
    assert process.returncode == 0, errors[-3000:]
    found = json.loads(printed.splitlines()[-1])
    assert found["exporter"] == str(source), "the older exporter was the one that ran"
    assert list(found["graphs"]) == list(GRAPHS)
    assert all((out / name).stat().st_size > 0 for name in GRAPHS)
