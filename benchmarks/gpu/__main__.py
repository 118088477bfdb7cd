"""Speed on a GPU with random weights at the released sizes. No network, no files but the result.

    python -m benchmarks.gpu                       # needs torch >= 2.11 and Triton >= 3.6, nothing installed
    python -m benchmarks.gpu --tiny --device cpu   # rehearsal: shows that the script runs; its numbers mean nothing

Kernels are checked against their twins and recorded frames against eager ones first; a failed check, or a part
that could not run, is exit status 1 and stops no other part. Then rows, printed as they are measured: milliseconds,
percentage of the floor (time to read the bytes that must be read at the maker's bandwidth, or to do the arithmetic
that must be done), and beside it a naive eager baseline over the same weights in the same run. The result is a JSON
file, by default below ``benchmarks/results``, which is replaced after every row; the last line is the same object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.record import ROOT, commit, gpus

RESULTS = ROOT / "benchmarks" / "results"
DEADLINE_S = 540.0  # a minute less than a machine may be lent for


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--tiny", action="store_true", help="sizes that run anywhere")
    parser.add_argument("--linear", default="dense", choices=("dense", "int8", "fp8"))
    parser.add_argument("--fused", action="store_true", help="matrices of few rows with what stands beside them")
    parser.add_argument("--no-naive", action="store_true", help="leave the baseline out")
    parser.add_argument("--no-sound", action="store_true", help="leave encoder, flow and vocoder out")
    parser.add_argument("--window", type=int, default=4, help="blocks of 1 s that the flow sees before its own")
    parser.add_argument("--parts", type=lambda text: text.split(","), help="names of parts, with commas; default: all")
    parser.add_argument("--comparisons", type=lambda text: text.split(";"), help="of the checks, with semicolons")
    parser.add_argument("--deadline", type=float, default=DEADLINE_S, help="seconds after which no other part begins")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="also write the kernels of a frame by their time")
    parser.add_argument("--json", type=Path, help="where to write the result")
    return parser.parse_args()


def facts(device: Any) -> dict[str, Any]:
    """What the numbers hold for."""
    import torch
    import triton

    cuda = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or "cpu",
        "driver": "".join(gpus("driver_version")[:1]) if cuda else "",
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "",
        "triton": triton.__version__,
        "python": platform.python_version(),
        **commit(),
    }


def main() -> int:
    """Exit status 1 when a check or a part fails, 2 when there is no such part."""
    began, given = time.monotonic(), arguments()
    if given.device == "cpu":
        os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported
    import torch

    from benchmarks.gpu.run import chosen, run

    try:
        chosen(given)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    found = facts(torch.device(given.device))
    size = "tiny" if given.tiny else "full"
    name = f"gpu_{size}_{_slug(found['device'])}_{given.linear}{'_fused' * given.fused}.json"
    result = run(given, found, given.json or RESULTS / name, began + given.deadline)
    print(json.dumps(result))
    return 0 if result["passed"] else 1


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


if __name__ == "__main__":
    sys.exit(main())
