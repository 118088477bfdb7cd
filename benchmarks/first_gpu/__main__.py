"""The first minutes on a machine with a GPU, as one command with a folder for its results.

    python3 -m benchmarks.first_gpu --out FOLDER                    # target cuda: torch >= 2.11, Triton >= 3.6
    python3 -m benchmarks.first_gpu --out FOLDER --steps card,checks,gpu,kernels --seconds 300
    python3 -m benchmarks.first_gpu --out FOLDER --rehearse         # on a CPU with tiny sizes; its numbers mean nothing
    python3 -m benchmarks.first_gpu --out FOLDER --plan container   # an H100 with Docker: target tensorrt, hours

Nothing is installed or fetched, and no .venv is needed (container: Docker fetches the image). Every part is a
process of its own under a limit: what hangs is killed, and a device error costs one part. ``first_gpu.json`` holds all
that was found, ``first_gpu.log`` what was printed. Exit status 1 when a part failed or was left out.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOST_THREADS = 8  # random weights of a billion numbers are drawn on the CPU
REHEARSAL_STRETCH = 8.0  # interpreted kernels are slow


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--plan", default="cuda", choices=("cuda", "container"))
    parser.add_argument("--steps", type=lambda text: text.split(","), help="names of steps, with commas; default: all")
    parser.add_argument("--seconds", type=float, help="budget; default: the plan's")
    parser.add_argument("--stretch", type=float, help="limits times this, on a slow machine")
    parser.add_argument("--rehearse", action="store_true", help="plan cuda on a CPU with tiny sizes")
    parser.add_argument("--show", action="store_true", help="print the budget and run nothing")
    return parser.parse_args()


def main() -> int:
    """Exit status 0 when everything passed, 1 when not, 2 when there is no such step."""
    given = arguments()
    from benchmarks.first_gpu import container, cuda
    from benchmarks.first_gpu.plan import stretched
    from benchmarks.first_gpu.run import FirstRun, budget

    out = given.out.absolute()
    if given.plan == "cuda":
        steps, seconds = cuda.cuda_plan(ROOT, sys.executable, out, given.rehearse), cuda.BUDGET_S
    else:
        steps, seconds = container.container_plan(), container.BUDGET_S
    unknown = set(given.steps or ()) - {step.name for step in steps}
    if unknown:
        print(f"--steps: {', '.join(sorted(unknown))}: not among {', '.join(s.name for s in steps)}", file=sys.stderr)
        return 2
    factor = given.stretch or (REHEARSAL_STRETCH if given.rehearse else 1.0)
    steps = [stretched(step, factor) for step in steps if step.name in (given.steps or [step.name])]
    seconds = given.seconds or seconds * factor
    print(budget(steps, seconds), flush=True)
    if given.plan == "container":
        print("by hand afterwards:", *container.BY_HAND, sep="\n* ")
    if given.show:
        return 0
    return 0 if FirstRun(ROOT, out, environment(given.rehearse)).run(steps, seconds) else 1


def environment(rehearse: bool) -> dict[str, str]:
    """Of all parts."""
    threads = 1 if rehearse else min(MOST_THREADS, os.cpu_count() or 1)
    return os.environ | {
        "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads),
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
