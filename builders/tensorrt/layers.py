"""What compiled plans are made of, in TensorRT's own words: is attention one kernel per layer, and which ones last?

``python -m builders.tensorrt.layers --out OUT``, on the GPU that they were compiled for. Not yet run on one.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import torch

from client.protocol.command_line import run_command
from runtime.graphs.plan import PLAN_SUFFIX
from runtime.graphs.tensorrt import Plan, load_tensorrt

KIND, KERNEL = "LayerType", "TacticName"  # of a layer as TensorRT describes it in detail


def summary(plan: Plan) -> list[str]:
    """Kernels and how many layers run each, most first."""
    counts = Counter(f"{layer.get(KIND, '?')}: {layer.get(KERNEL, '?')}" for layer in plan.layers())
    return [f"{count:6} {name}" for name, count in counts.most_common()]


def main(arguments: list[str] | None = None) -> int:
    """Prints every plan of a built folder; exit status 0."""
    parser = argparse.ArgumentParser(prog="python -m builders.tensorrt.layers", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="built folder")
    given, trt = parser.parse_args(arguments), load_tensorrt()
    for path in sorted(given.out.rglob(f"*{PLAN_SUFFIX}")):
        print(path.name)
        stream = torch.cuda.current_stream().cuda_stream
        print("\n".join(summary(Plan(trt, path.name, path.read_bytes(), stream))))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
