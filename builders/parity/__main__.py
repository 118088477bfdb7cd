"""`python -m builders.parity`: the five cases on the engines of a built folder against the torch engine.

The reference is the torch engine on the CPU in float32, over the same checkpoint; for the released model
that takes 40 GB of host memory and some minutes. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from builders.parity.comparison import TARGETS, Comparison
from builders.parity.report import table
from client.protocol.command_line import run_command
from runtime.errors import ServeError
from runtime.options import Options


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m builders.parity", description=__doc__)
    made.add_argument("--out", type=Path, required=True, help="built folder, for example build/tensorrt")
    made.add_argument("--target", choices=TARGETS, default="tensorrt", help="cpu: the torch engine on both sides")
    made.add_argument("--reference-dtype", default="float32", help="bfloat16 halves the memory of the reference")
    made.add_argument("--graphs", type=int, default=0, help="captured CUDA graphs that an engine may keep")
    made.add_argument("--device", default="cuda", help="of target cuda; on cpu the twins of its kernels run")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when every case passes, 1 otherwise."""
    given = parser().parse_args(arguments)
    try:
        comparison = Comparison(
            Options.read(given.out), given.target, given.reference_dtype, given.graphs, given.device
        )
        findings = comparison.run(lambda line: print(line, flush=True))
    except ServeError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(findings))
    passed = all(finding.passed for finding in findings)
    print(json.dumps({"target": given.target, "passed": passed, "cases": [f.record() for f in findings]}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(run_command(main))
