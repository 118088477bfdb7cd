"""What every endurance run is told, and the server that it starts."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.record import provenance
from runtime.supervisor.launch import ServerProcess


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the built folder, the seed, where result and log go."""
    parser.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: %(default)s)")
    parser.add_argument("--save", type=Path, default=None, help="file for the result with machine, commit, versions")
    parser.add_argument("--log", type=Path, default=None, help="file for the server's log")


def serve(arguments: argparse.Namespace) -> ServerProcess:
    """Starts a server of the built folder with a fresh log: what an old one says of readiness would be believed."""
    provenance()  # of the beginning of the run
    if arguments.log is not None:
        arguments.log.unlink(missing_ok=True)
    return ServerProcess(arguments.out, log_file=arguments.log)
