"""Entry point of `python -m client.perf`."""

import sys

from client.perf.cli import main
from runtime.command_line import run_command

if __name__ == "__main__":
    sys.exit(run_command(main))
