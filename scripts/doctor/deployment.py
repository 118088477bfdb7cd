"""Checks built folder, manifest, ports and server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from client.access import OPEN, Access
from runtime.errors import ServeError
from runtime.manifest import verify
from runtime.supervisor.config import PUBLIC_MODEL, Addresses
from runtime.supervisor.errors import PortInUse
from runtime.supervisor.ports import check_free, is_local
from runtime.supervisor.repository import RepositoryApi
from scripts.doctor.finding import FAIL, OK, WARN, Finding

CPU = "cpu"
OPTIONS_FILE = "options.json"


def target_of(out: Path) -> str:
    """The target that a folder was built for; `cpu` when it does not say."""
    try:
        return str(json.loads((out / OPTIONS_FILE).read_text("utf-8")).get("target", CPU))
    except (OSError, ValueError, AttributeError):
        return CPU


def check_engines(out: Path) -> Finding:
    """Engines complete, and made by this program from these checkpoints."""
    if not out.is_dir():
        return Finding("engines", FAIL, f"{out} does not exist", f"make build-engines OUT={out}")
    try:
        manifest = verify(out)
    except ServeError as error:
        return Finding("engines", FAIL, error.problem, error.remedy)
    files = sum(len(step.files) for step in manifest.steps.values())
    return Finding("engines", OK, f"{out}: target {manifest.target}, {files} files match the manifest")


def check_server(addresses: Addresses, out: Path, access: Access = OPEN) -> Iterator[Finding]:
    """A server that answers, else free ports for one."""
    api = RepositoryApi(addresses.http)
    if api.ready(PUBLIC_MODEL):
        yield Finding("ports", OK, f"{_ports(addresses)} are the running server's")
        yield Finding("server", OK, f"ready at {addresses.grpc}")
        yield check_access(addresses.grpc, access)
        return
    if api.live():
        yield Finding("ports", OK, f"{_ports(addresses)} are a running Triton's")
        yield Finding("server", FAIL, f"Triton answers at {addresses.http}, {PUBLIC_MODEL} is not ready",
                      "wait for the end of its warm-up; else see the log of make serve")  # fmt: skip
        return
    if _answers(addresses.grpc, access):
        yield Finding("ports", OK, f"{addresses.grpc_port} is the running server's; {addresses.http} is out of reach")
        yield Finding("server", OK, f"answers at {addresses.grpc}")
        yield check_access(addresses.grpc, access)
        return
    if not is_local(addresses.host):
        words = f"none answers at {addresses.grpc}, which is no address of this machine"
        yield Finding("server", FAIL, words, "start it there, or give its HOST, GRPC_PORT and --tls, --ca or --token")
        return
    try:
        check_free(addresses)
        yield Finding("ports", OK, f"{_ports(addresses)} are free")
    except PortInUse as error:
        yield Finding("ports", FAIL, f"{error.field}: {error.problem}", error.remedy)
    yield Finding("server", WARN, f"none answers at {addresses.http}", f"make serve OUT={out}")


def check_access(url: str, access: Access) -> Finding:
    """Whether the server lets this caller in: TLS, certificate and token."""
    # Late: gRPC is among the libraries that may be broken.
    try:
        from client.errors import ChatError
        from client.probe import probe
    except Exception as error:
        return Finding("access", FAIL, f"gRPC does not load ({type(error).__name__})", "make setup")
    try:
        probe(url, access)
    except ChatError as error:
        return Finding("access", FAIL, error.message, "give --ca, --cert, --key, --token or --header to the doctor too")
    return Finding("access", OK, f"{url} takes requests from here")


def _answers(url: str, access: Access) -> bool:
    try:
        from client.probe import answers
    except Exception:  # reported by check_libraries
        return False
    return answers(url, access)


def _ports(addresses: Addresses) -> str:
    return ", ".join(str(port) for port in addresses.ports().values())
