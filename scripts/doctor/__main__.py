"""Runs every check and prints one line each, with the fix for each fault."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from client.access import OPEN, Access, access_of, add_access
from client.protocol.command_line import run_command
from runtime.supervisor.config import Addresses
from scripts.doctor import deployment, machine
from scripts.doctor.finding import FAIL, Finding


def parser() -> argparse.ArgumentParser:
    """The command line."""
    at = Addresses()
    made = argparse.ArgumentParser(prog="make doctor", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder (%(default)s)")
    made.add_argument("--host", default=at.host)
    for name, port in at.ports().items():
        made.add_argument(f"--{name.replace('_', '-')}", type=int, default=port)
    add_access(made)
    made.add_argument("--json", action="store_true", help="one JSON list instead of lines")
    return made


def examine(out: Path, addresses: Addresses, access: Access = OPEN) -> Iterator[Finding]:
    """All findings, from the ground up."""
    yield machine.check_python()
    yield from machine.check_environment()
    yield from machine.check_libraries()
    yield machine.check_triton()
    yield machine.check_gpu(deployment.target_of(out))
    yield machine.check_disk(out)
    yield machine.check_shared_memory()
    yield deployment.check_engines(out)
    yield from deployment.check_server(addresses, out, access)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 without faults, 1 with one."""
    made = parser()
    options = made.parse_args(arguments)
    try:
        addresses = Addresses(options.host, options.grpc_port, options.http_port, options.metrics_port)
        access = access_of(options)
    except ValueError as error:
        made.error(str(error))
    findings = []
    for finding in examine(options.out, addresses, access):
        findings.append(finding)
        if not options.json:
            print(finding.lines(), flush=True)
    faults = sum(finding.state == FAIL for finding in findings)
    if options.json:
        print(json.dumps([dataclasses.asdict(finding) for finding in findings]))
    else:
        print(f"{faults} fault{'' if faults == 1 else 's'}" if faults else "no faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run_command(main))
