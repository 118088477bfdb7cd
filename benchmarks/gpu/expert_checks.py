"""One layer of experts by kernels and by twins, at the sizes of the backbone with experts."""

from __future__ import annotations

from functools import partial

import torch

from benchmarks.gpu.bed import Bed, Pairs
from kernels.experts import Experts, run_experts
from kernels.linear import Dense
from kernels.quantised import quantise
from runtime.checkpoint.experts import ExpertSizes
from runtime.engines.kernel_stack import MakeMatrix

A3B_HIDDEN, A3B = 2048, ExpertSizes(count=128, taken=8, width=768, normalised=True)
TINY_HIDDEN, TINY = 32, ExpertSizes(count=4, taken=2, width=16, normalised=True)


def _layer(bed: Bed, hidden: int, sizes: ExpertSizes, make: MakeMatrix) -> Experts:
    def matrix(outputs: int, depth: int) -> torch.Tensor:
        return bed.rand(outputs, depth) / depth**0.5

    count, width = sizes.count, sizes.width
    gate_up, down = make(matrix(count * 2 * width, hidden)), make(matrix(count * hidden, width))
    # Scores far from each other: two routers that differ in the last bit take the same experts.
    return Experts(8 * matrix(count, hidden), gate_up, down, sizes.taken, sizes.normalised)


def expert_results(bed: Bed) -> Pairs:
    """Dense and int8: one row, several, where a server with many streams is, and a prompt."""
    hidden, sizes = (TINY_HIDDEN, TINY) if bed.sizes.name == "tiny" else (A3B_HIDDEN, A3B)
    kinds: dict[str, MakeMatrix] = {"dense": Dense, "int8": partial(quantise, dtype=torch.int8)}
    for name, make in kinds.items():
        layer = _layer(bed, hidden, sizes, make)
        for rows in (*bed.sizes.compared, bed.sizes.prefill):
            x = bed.rand(rows, hidden)
            yield f"experts {name}, {rows} rows", run_experts(bed.mine, x, layer), run_experts(bed.twin, x, layer)
