"""Access of the server, without a server: options, keys, certificates, warnings."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from client.protocol.wire import ADMIN_HEADER, KEY_HEADER, is_loopback
from runtime.supervisor.__main__ import config_of, parser
from runtime.supervisor.access import Access, exposure, read_secret
from runtime.supervisor.errors import BadAccess
from runtime.supervisor.hide_keys import hide_arguments

TOKEN = "0123456789abcdef"


def given(tmp_path, *words):
    return config_of(parser().parse_args(["--out", str(tmp_path), *words]))


def test_the_defaults_restrict_and_forward(tmp_path):
    line = given(tmp_path).access.arguments("the-key")
    for option in ("grpc-restricted-protocol", "http-restricted-api"):
        assert f"--{option}=model-repository,shared-memory,trace,logging:{ADMIN_HEADER}=the-key" in line
    assert sum(KEY_HEADER in word for word in line) == 2
    assert not any("ssl" in word for word in line)


def test_every_life_has_its_own_admin_key(tmp_path):
    access = Access()
    assert access.admin_key() != access.admin_key() and len(access.admin_key()) > 40
    (tmp_path / "key").write_text(TOKEN + "\n")
    assert Access(admin_key_file=str(tmp_path / "key")).admin_key() == TOKEN


def test_a_token_and_nothing_restricted(tmp_path):
    (tmp_path / "token").write_text(TOKEN)
    line = Access(restricted="", token_file=str(tmp_path / "token")).arguments("k")
    assert f"--http-restricted-api=inference,metadata,model-config,statistics:authorization=Bearer {TOKEN}" in line
    assert not any(ADMIN_HEADER in word for word in line)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"restricted": "trace,repository"}, "restricted: 'repository' is none of"),
        ({"restricted": "health"}, "health"),
        ({"restricted": "statistics", "token_file": "x"}, "statistics"),
        ({"tls_cert": "x"}, "tls_key: missing"),
        ({"tls_key": "x"}, "tls_cert: missing"),
        ({"tls_client_ca": "x"}, "tls_client_ca: needs"),
    ],
)
def test_what_does_not_fit_together_is_named(values, words):
    with pytest.raises(ValueError, match=words):
        Access(**values)


@pytest.mark.parametrize("content", ["", "short", "with space in the middle", "two\nlines-of-some-length", "ä" * 20])
def test_a_bad_secret_is_refused_and_not_shown(tmp_path, content):
    path = tmp_path / "secret"
    path.write_text(content)
    with pytest.raises(BadAccess, match="openssl rand -hex 32") as caught:
        read_secret("token_file", str(path))
    assert not content or content not in str(caught.value)
    with pytest.raises(BadAccess, match="FileNotFoundError; give a file"):
        Access(token_file=str(tmp_path / "none")).check_files()


def test_certificates_are_checked_before_the_start(tmp_path):
    (tmp_path / "not.pem").write_text("no certificate")
    name = str(tmp_path / "not.pem")
    with pytest.raises(BadAccess, match=r"tls_cert: .*not\.pem"):
        Access(tls_cert=name, tls_key=name).check_files()


def test_plain_endpoints_stay_on_loopback_beside_tls(tmp_path):
    tls = ("--tls-cert=c", "--tls-key=k", "--host=0.0.0.0")
    assert given(tmp_path, "--host=0.0.0.0").addresses.hosts()["http_port"] == "0.0.0.0"
    assert given(tmp_path, *tls).addresses.hosts() == {
        "grpc_port": "0.0.0.0",
        "http_port": "127.0.0.1",
        "metrics_port": "127.0.0.1",
    }
    assert given(tmp_path, *tls, "--http-host=10.0.0.1").addresses.http == "http://10.0.0.1:8000"


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("127.3.2.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
     ("10.0.0.1", False), ("chat.example", False)],
)  # fmt: skip
def test_loopback(host, local):
    assert is_loopback(host) == local
    assert (exposure(host, Access()) is None) == local


def test_the_warning_says_what_is_missing():
    tls, token = {"tls_cert": "c", "tls_key": "k"}, {"token_file": "t"}
    assert "--token-file" in exposure("0.0.0.0", Access()) and "--tls-cert" in exposure("0.0.0.0", Access())
    assert "--tls-cert" not in exposure("0.0.0.0", Access(**tls))
    assert "unencrypted" in exposure("0.0.0.0", Access(**token))
    assert exposure("0.0.0.0", Access(**tls, **token)) is None
    assert exposure("0.0.0.0", Access(**tls, tls_client_ca="ca")) is None


def test_words_leave_the_list_of_processes():
    program = [sys.executable, "-c", "import time; time.sleep(30)", f"--key={TOKEN}", "--other=1"]
    with subprocess.Popen(program) as process:
        try:
            shown = Path(f"/proc/{process.pid}/cmdline")
            deadline = time.monotonic() + 10
            while TOKEN.encode() not in shown.read_bytes():
                assert time.monotonic() < deadline
            if not hide_arguments(process.pid, (TOKEN, "")):
                pytest.skip("this kernel does not let a parent write into its child")
            assert b"--key=****************\0--other=1" in shown.read_bytes()
            assert process.poll() is None
        finally:
            process.kill()
    assert hide_arguments(process.pid, (TOKEN,)), "a child that is gone shows nothing"
