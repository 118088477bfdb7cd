"""The server that is measured: the one that runs at the address, else one started for the purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.perf.clips import made_question
from client.access import OPEN, Access
from client.client import ChatClient
from client.errors import ChatError
from client.probe import answers
from client.request import DEFAULT_RATE
from runtime.supervisor.config import PUBLIC_MODEL, Addresses
from runtime.supervisor.launch import ServerProcess
from runtime.supervisor.ports import is_local
from runtime.supervisor.repository import RepositoryApi

WARM_UP = 3  # answers before anything is measured
WARM_UP_S, WARM_UP_CLIP_S = 300.0, 1.0


@contextlib.contextmanager
def server_at(addresses: Addresses, out: Path, access: Access = OPEN) -> Iterator[str]:
    """Yields in words which server it is.

    Raises:
        ServeError: none runs there, and none could be started.
        ChatError: none runs there, and the host is another machine or the folder is not built.
    """
    if RepositoryApi(addresses.http).ready(PUBLIC_MODEL) or answers(addresses.grpc, access):
        yield "found running"
        return
    if not is_local(addresses.host):
        raise ChatError(
            "UNAVAILABLE",
            "server",
            f"none answers at {addresses.grpc}, which is no address of this machine; start it there, or give its "
            "HOST, GRPC_PORT and --tls, --ca or --token",
        )
    if not out.is_dir():
        raise ChatError(
            "NOT_FOUND", "server", f"none at {addresses.grpc}, and {out} is not built; run make build-engines"
        )
    with ServerProcess(out, addresses):
        yield "started for this run"


def warm_up(url: str, access: Access = OPEN) -> None:
    """A few short answers in both modes, so that the first level is like the others."""
    clip = made_question(WARM_UP_CLIP_S)
    with ChatClient(url, tls=access.tls, headers=access.headers) as client:
        for number in range(WARM_UP):
            for mode in ("s2s", "s2t"):
                client.ask(clip, DEFAULT_RATE, mode=mode, max_tokens=16, seed=number, timeout=WARM_UP_S)
