"""Every kernel against its twin on the device, at the sizes of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from benchmarks.gpu.bed import ROWS, Bed, Pairs, choices_of
from benchmarks.gpu.expert_checks import expert_results
from benchmarks.gpu.flow_checks import flow_dtype, flow_results
from benchmarks.gpu.rule_checks import accepted
from benchmarks.gpu.stack_checks import STACKS, stack_results
from benchmarks.gpu.variant_checks import TEXT_SAMPLERS, VARIANTS
from builders.released import BenchSizes
from kernels.linear import Dense
from kernels.ops import kernel_ops, twin_ops
from kernels.paged_rows import cut_tiles
from kernels.quantised import FEW_ROWS, knows_fp8, quantise, scaled_product

CHUNK, IDS = 21, 40
SEED = 0  # before every comparison: none depends on whether another one could run
EPS = 1e-6
LONGEST = 400  # characters of an error
TOLERANCES = {torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 3e-2}  # of the largest value; TF32 is off


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: largest difference as a fraction of the largest value, or why there is none."""

    name: str
    error: float
    bound: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        """Written so that a NaN fails."""
        return not self.problem and bool(self.error <= self.bound)


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = float(expected.float().abs().max()) or 1.0
    return float((found.float() - expected.float()).abs().max()) / scale


def _rows(bed: Bed) -> Pairs:
    config = bed.sizes.model.speech_head
    args = (bed.rand(ROWS, config.num_heads, config.head_dim), *bed.rows(config), 1)
    yield "attention of rows", bed.mine.attend_rows(*args), bed.twin.attend_rows(*args)


def _chunks(bed: Bed) -> Pairs:
    begin, tiles = 7, torch.tensor(cut_tiles([CHUNK]), dtype=torch.int32, device=bed.device)
    for name in STACKS:
        config = getattr(bed.sizes.model, name)
        q, pool = bed.rand(CHUNK, config.num_heads, config.head_dim), bed.rows(config)[0]
        args = (q, pool, bed.ints([1] * CHUNK), bed.ints(list(range(begin, begin + CHUNK))), tiles, 1)
        yield f"attention of chunks, {name}", bed.mine.attend_chunks(*args), bed.twin.attend_chunks(*args)


def _rotary(bed: Bed) -> Pairs:
    config = bed.sizes.model.speech_head
    pool, slots, ends = bed.rows(config)
    heads = config.num_heads + 2 * config.num_kv_heads
    mixed = bed.rand(ROWS, heads, config.head_dim)
    norm = bed.rand(config.num_heads + config.num_kv_heads, config.head_dim)
    turn = (mixed, norm, bed.rand(max(bed.lengths), 2, config.head_dim), pool, slots, ends, 1, EPS)
    before = pool.memory.clone()
    expected = bed.twin.rotate_and_store(*turn)
    kept = pool.memory.clone()
    pool.memory.copy_(before)
    yield "rotary of queries", bed.mine.rotate_and_store(*turn), expected
    yield "cache write", pool.memory, kept


def _norm(bed: Bed) -> Pairs:
    args = (bed.rand(ROWS, bed.width), bed.rand(ROWS, bed.width), bed.rand(bed.width), EPS)
    pairs = zip(bed.mine.add_rms_norm(*args), bed.twin.add_rms_norm(*args), strict=True)
    for number, (found, expected) in enumerate(pairs):
        yield f"norm with residual, output {number}", found, expected


def _swiglu(bed: Bed) -> Pairs:
    wide = bed.rand(ROWS, 2 * bed.width)
    yield "SwiGLU", bed.mine.swiglu(wide), bed.twin.swiglu(wide)


def _group_embedding(bed: Bed) -> Pairs:
    ids = torch.arange(ROWS, device=bed.device)
    group = torch.randint(bed.codes, (ROWS, 5), device=bed.device)
    matrix = Dense(bed.rand(bed.width, bed.width) / bed.width**0.5)
    args = (bed.rand(IDS, bed.width), ids, bed.rand(bed.codes, bed.width), group, ids % 2 == 0, matrix)
    yield "group embedding", bed.mine.group_embedding(*args), bed.twin.group_embedding(*args)


def _code_embedding(bed: Bed) -> Pairs:
    ids = torch.randint(IDS, (ROWS, 5), device=bed.device)[:, -1]
    args = (bed.rand(ROWS, 5, bed.width)[:, 2], bed.rand(IDS, bed.width), ids)
    yield "code embedding", bed.mine.add_embedding(*args), bed.twin.add_embedding(*args)


def _euler(bed: Bed) -> Pairs:
    x, velocity = torch.randn(2, 80, 61, device=bed.device), torch.randn(4, 80, 61, device=bed.device)
    args = (x, velocity, torch.tensor([0.1], device=bed.device), 0.7)
    yield "Euler step", bed.mine.guided_step(*args), bed.twin.guided_step(*args)


def _snake(bed: Bed) -> Pairs:
    args = (torch.randn(2, 80, 61, device=bed.device), torch.rand(80, device=bed.device) + 0.5)
    yield "snake", bed.mine.snake(*args), bed.twin.snake(*args)


def _quantised(bed: Bed, name: str, kind: torch.dtype) -> Pairs:
    from kernels.gpu.quantised import scaled_product as fused

    matrix = quantise(bed.rand(96, bed.width), kind)
    for rows in (ROWS, FEW_ROWS):
        args = (bed.rand(rows, bed.width), matrix.weight, matrix.scale)
        yield f"{name} product, {rows} rows", fused(*args), scaled_product(*args)


def _int8(bed: Bed) -> Pairs:
    yield from _quantised(bed, "int8", torch.int8)


def _fp8(bed: Bed) -> Pairs:
    if knows_fp8(bed.device):
        yield from _quantised(bed, "FP8", torch.float8_e4m3fn)


def _fused(bed: Bed) -> Pairs:
    matrix = Dense(bed.rand(2 * 96, bed.width) / bed.width**0.5)
    args = (bed.rand(ROWS, bed.width), matrix, 1 + 0.1 * bed.rand(bed.width), EPS, None, True)
    yield "norm, matrix, SwiGLU", bed.mine.fused_linear(*args), bed.twin.fused_linear(*args)


def _flow(bed: Bed) -> Pairs:
    yield from flow_results(bed.sizes, bed.device, flow_dtype(bed.dtype), bed.mine, bed.twin)


def _sampler(bed: Bed) -> Pairs:
    """Ids, of which none may differ."""
    choices, scores = choices_of(bed.codes, bed.device), 3 * torch.randn(ROWS, bed.codes, device=bed.device)
    group = torch.randint(bed.codes, (ROWS, 5), device=bed.device)
    args = (scores, bed.ints(list(range(ROWS))), choices, group, 2)
    yield SAMPLER, bed.mine.choose(*args), bed.twin.choose(*args)


def _rules(bed: Bed) -> Pairs:
    """Ids and flags, of which none may differ."""
    yield RULES, accepted(bed.mine.accept, bed.device), accepted(bed.twin.accept, bed.device)


WHOLE_STACKS, EXPERTS = "two layers of each stack", "mixture of experts"
SAMPLER, RULES = "sampler, ids", "rules of the answer"
EXACT = (SAMPLER, RULES, *TEXT_SAMPLERS)
#: What each is called when it cannot run -> the comparison.
COMPARISONS: dict[str, Callable[[Bed], Pairs]] = {
    "attention of rows": _rows, "attention of chunks": _chunks, "rotary and cache write": _rotary,
    "norm with residual": _norm, "SwiGLU": _swiglu, "group embedding": _group_embedding,
    "code embedding": _code_embedding, "Euler step": _euler, "snake": _snake, "int8 product": _int8,
    "FP8 product": _fp8, "norm, matrix, SwiGLU": _fused, "flow's transformer": _flow, SAMPLER: _sampler,
    RULES: _rules, **VARIANTS, WHOLE_STACKS: stack_results, EXPERTS: expert_results,
}  # fmt: skip


def run_checks(
    sizes: BenchSizes, device: torch.device, dtype: torch.dtype, names: Sequence[str] | None = None
) -> Iterator[Check]:
    """One after another: one that cannot run stops no other. A CPU's interpreter knows float32 only.

    Args:
        names: of ``COMPARISONS``; all when None.

    Raises:
        DeviceLost: after a comparison, when the device does nothing more in this process.
    """
    bed = Bed(sizes, device, dtype, kernel_ops(), twin_ops())
    for name, compare in COMPARISONS.items():
        if names is not None and name not in names:
            continue
        torch.manual_seed(SEED)
        try:
            # Errors of the device show here and not in the next comparison.
            found = [(label, _error(mine, twin)) for label, mine, twin in compare(bed)]
        except Exception as error:
            yield Check(name, float("nan"), 0.0, explained(error))
            if lost(device):
                raise DeviceLost(name) from error
            continue
        for label, value in found:
            yield Check(label, value, 0.0 if label in EXACT else TOLERANCES[dtype])


def lost(device: torch.device) -> bool:
    """Whether an error stays with this process: after an illegal address, say, every call of the device fails."""
    if device.type != "cuda":
        return False
    try:
        torch.cuda.synchronize(device)
    except RuntimeError:
        return True
    return False


class DeviceLost(Exception):
    """The device does nothing more in this process."""


def explained(error: Exception) -> str:
    """Type and first words of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
