"""TLS, certificates and the token, on real servers, by every client."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys

import pytest
from secured import AT_MODEL, TOKEN, http, own_server

from benchmarks.perf.analyzer_install import find_analyzer
from client import NO_RETRY, AccessDenied, AsyncChatClient, ChatClient, ChatError, ServerLost, Tls, token_headers
from client.access import Access
from runtime.supervisor.errors import StartFailed
from scripts.doctor.deployment import check_server


def ask(server, tls=None, headers=None, url=None):
    with ChatClient(url or server.url, NO_RETRY, tls=tls, headers=headers) as chat:
        return chat.ask(text='{"chunks": 2}', timeout=10).text


async def ask_aio(server, tls, headers):
    async with AsyncChatClient(server.url, NO_RETRY, tls=tls, headers=headers) as chat:
        return (await chat.ask(text='{"chunks": 2}', timeout=10)).text


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
    # Which of them depends on whether the server's alert arrives before the connection's end.
    with pytest.raises((AccessDenied, ServerLost), match="a certificate"):
        ask(guarded, tls(own), token_headers(TOKEN))


@pytest.mark.parametrize("headers", [{}, token_headers("wrong"), {"authorization": f"Bearer {TOKEN}"}])
def test_a_missing_or_wrong_token(guarded, tls, headers):
    with pytest.raises(AccessDenied, match=r"UNAUTHENTICATED: authorization: .*; give the right one"):
        ask(guarded, tls("client"), headers)
    with pytest.raises(AccessDenied):
        asyncio.run(ask_aio(guarded, tls("client"), headers))


def test_asyncio_clients_hear_every_refusal(guarded, tls):
    """gRPC loses some when the request is written as a stream (see ``AsyncChatClient``)."""

    async def refused():
        async with AsyncChatClient(guarded.url, NO_RETRY, tls=tls("client"), headers=token_headers("wrong")) as chat:
            return await asyncio.gather(*(chat.ask(text="{}", timeout=10) for _ in range(100)), return_exceptions=True)

    assert {type(error) for error in asyncio.run(refused())} == {AccessDenied}


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
    done = run("benchmarks.perf", tool, "--out", str(guarded.out), *ports(guarded), *levels, *options_of(secrets_))
    assert done.returncode == 0, done.stderr
    (level,) = json.loads(done.stdout.splitlines()[-1])["levels"]
    assert (level["requests"], level["errors"]) == (4, 0), level["error_kinds"]
