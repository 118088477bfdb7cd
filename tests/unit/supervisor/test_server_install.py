"""Which tritonserver is run: a named one, the environment's, the container's, the wheel's."""

import os
import sys
from pathlib import Path

import pytest

from runtime.supervisor import bundle
from runtime.supervisor.__main__ import config_of, parser
from runtime.supervisor.bundle import TritonInstall, find_install
from runtime.supervisor.errors import InstallError


def binary(folder, backends=()):
    """A tritonserver laid out as in the container."""
    path = folder / "bin" / "tritonserver"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    for name in backends:
        (folder / "backends" / name).mkdir(parents=True)
        (folder / "backends" / name / f"triton_{name}_backend_stub").touch()
    return path


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.delenv("TRITONSERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(bundle, "CONTAINER_BINARY", tmp_path / "nowhere" / "tritonserver")
    monkeypatch.setattr(bundle, "_from_wheel", lambda cache: TritonInstall(("the wheel's",)))


def test_without_any_the_wheel_is_used():
    assert find_install().command == ("the wheel's",)


def test_order_of_places(monkeypatch, tmp_path):
    container = binary(tmp_path / "container")
    monkeypatch.setattr(bundle, "CONTAINER_BINARY", container)
    assert find_install().command == (str(container),)
    on_path = binary(tmp_path / "path")
    monkeypatch.setenv("PATH", str(on_path.parent))
    assert find_install().command == (str(on_path),)
    variable = binary(tmp_path / "variable")
    monkeypatch.setenv("TRITONSERVER", str(variable))
    assert find_install().command == (str(variable),)
    named = binary(tmp_path / "named")
    assert find_install(named=str(named)).command == (str(named),)


def test_a_named_binary_must_be_one(tmp_path):
    with pytest.raises(InstallError, match="is not an executable file"):
        find_install(named=str(tmp_path / "missing"))
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(InstallError, match="is not an executable file"):
        find_install(named=str(plain))


def test_backends_beside_the_binary_are_used_only_if_complete(tmp_path):
    whole = binary(tmp_path / "whole", ["python", "onnxruntime"])
    assert find_install(named=str(whole)).backend_directory == tmp_path / "whole" / "backends"
    assert find_install(named=str(binary(tmp_path / "bare"))).backend_directory is None
    assert find_install(named=str(binary(tmp_path / "other", ["onnxruntime"]))).backend_directory is None
    link = tmp_path / "link"
    link.symlink_to(whole)
    assert find_install(named=str(link)).backend_directory == tmp_path / "whole" / "backends"


def test_stubs_get_the_interpreter_that_has_our_package(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", "/some/environment")
    found = find_install(named=str(binary(tmp_path / "any"))).environment
    assert found["VIRTUAL_ENV"] == "/some/environment"
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert "LD_LIBRARY_PATH" not in found, "the image's own stays"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert "VIRTUAL_ENV" not in find_install(named=str(tmp_path / "any" / "bin" / "tritonserver")).environment


def test_the_binary_is_an_option_of_the_server(tmp_path):
    assert config_of(parser().parse_args(["--out", str(tmp_path)])).triton is None
    given = parser().parse_args(["--out", str(tmp_path), "--triton", "/opt/other/tritonserver"])
    assert config_of(given).triton == "/opt/other/tritonserver"
