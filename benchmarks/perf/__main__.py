"""Entry point of `python -m benchmarks.perf`."""

import sys

from client.protocol.command_line import run_command


def main() -> int:
    """The command; it is loaded here, so that what goes wrong then is one line, too."""
    from benchmarks.perf import cli

    return cli.main()


if __name__ == "__main__":
    sys.exit(run_command(main))
