"""`python -m runtime.supervisor`: a supervised Triton server on one rendered folder."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import sys
from pathlib import Path
from typing import Any

from client.protocol.command_line import run_command
from client.protocol.version import VERSION
from runtime.supervisor.access import Access
from runtime.supervisor.config import DEFAULT_HOST, Addresses, Patience, ServerConfig
from runtime.supervisor.supervisor import Supervisor


def parser() -> argparse.ArgumentParser:
    """The command line; defaults are those of the configuration."""
    made = argparse.ArgumentParser(prog="python -m runtime.supervisor", description=__doc__)
    made.add_argument("--version", action="version", version=VERSION)
    made.add_argument("--out", type=Path, required=True, help="rendered folder, for example build/cpu")
    made.add_argument("--log-file", type=Path, help="append tritonserver's output here (default: standard error)")
    made.add_argument("--no-verify", dest="verify", action="store_false", help="do not compare OUT with its manifest")
    made.add_argument(
        "--triton-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="one more argument for tritonserver; repeatable",
    )
    made.add_argument(
        "--triton", metavar="BINARY", help="tritonserver to run (default: TRITONSERVER, PATH, container, wheel)"
    )
    _add_fields(made.add_argument_group("addresses"), Addresses())
    _add_fields(made.add_argument_group("access (docs/access.md)"), Access())
    _add_fields(made.add_argument_group("patience (seconds; quick_failures is a count)"), Patience())
    return made


def _add_fields(group: argparse._ArgumentGroup, defaults: Addresses | Access | Patience) -> None:
    for item in dataclasses.fields(defaults):
        default = getattr(defaults, item.name)
        group.add_argument(f"--{item.name.replace('_', '-')}", type=type(default), default=default, help=f"{default}")


def config_of(options: argparse.Namespace) -> ServerConfig:
    """The checked configuration.

    Raises:
        ValueError: naming option and value.
    """
    values = vars(options)
    return ServerConfig(
        out=options.out.absolute(),
        addresses=_addresses(values),
        access=Access(**_chosen(Access, values)),
        patience=Patience(**_chosen(Patience, values)),
        log_file=options.log_file,
        verify=options.verify,
        triton_args=tuple(options.triton_arg),
        triton=options.triton,
    )


def _addresses(values: dict[str, Any]) -> Addresses:
    """HTTP and metrics stay on loopback beside a gRPC with TLS, unless they are given an address."""
    chosen = _chosen(Addresses, values)
    if values["tls_cert"] and not chosen["http_host"]:
        chosen["http_host"] = DEFAULT_HOST
    return Addresses(**chosen)


def _chosen(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    return {item.name: values[item.name] for item in dataclasses.fields(kind)}


def announce(addresses: Addresses) -> None:
    """The one line that says that requests are welcome. Who read the first one may be gone at the next."""
    line = f"ready: grpc {addresses.grpc} | readiness {addresses.ready_url} | metrics {addresses.metrics_url}\n"
    if sys.stdout is None:  # closed by who started us
        return
    # Past the buffer: what it cannot get rid of it would try again at exit, and spoil the exit status.
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), line.encode())


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 after a graceful stop, 1 with one line on standard error otherwise."""
    made = parser()
    options = made.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s supervisor %(message)s")
    try:
        config = config_of(options)
    except ValueError as error:
        made.error(str(error))
    return run_command(Supervisor(config, announce).run)


if __name__ == "__main__":
    sys.exit(main())
