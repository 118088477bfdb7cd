"""Entry point of `python -m client.perf`."""

import sys

from client.perf.cli import main

if __name__ == "__main__":
    sys.exit(main())
