"""Entry point of the command line: one question; `batch` for many."""

import os
import sys

from .protocol.command_line import run_command

QUIET = "NONE"  # gRPC writes failed handshakes to stderr, beside the error that it raises


def main(arguments: list[str]) -> int:
    """Hands over to the command that the first word names."""
    os.environ.setdefault("GRPC_VERBOSITY", QUIET)
    command = arguments[0] if arguments else ""
    # Imported here: each command loads only what it needs.
    if command == "batch":
        from . import batch

        return batch.main(arguments[1:])
    from . import cli

    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(run_command(lambda: main(sys.argv[1:])))
