"""Every kernel against its twin on the device, at the sizes of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from gpubench.flow_checks import flow_results
from gpubench.rule_checks import accepted
from gpubench.sizes import BenchSizes
from kernels.choice import Choices
from kernels.linear import Dense
from kernels.ops import Ops, kernel_ops, twin_ops
from kernels.paged_rows import Pool, cut_tiles
from kernels.quantised import knows_fp8, quantise, scaled_product

ROWS, TOKENS, CHUNK, IDS = 3, 32, 21, 40
FIRST, LAST = 5, 70  # lengths of the sequences beside one of the sizes' context
SEED = 0  # before every comparison: none depends on whether another one could run
EPS = 1e-6
LONGEST = 400  # characters of an error
SHUFFLE = 7  # block numbers are spread by this step
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


@dataclass(frozen=True, slots=True)
class Bed:
    """Where the kernels are compared: sizes, device, type, both sets of operations."""

    sizes: BenchSizes
    device: torch.device
    dtype: torch.dtype
    mine: Ops
    twin: Ops

    @property
    def width(self) -> int:
        """Of a row of the backbone."""
        return self.sizes.model.backbone.hidden_size

    @property
    def codes(self) -> int:
        """Entries of the codebook."""
        return self.sizes.model.speech_ids.codebook_size

    @property
    def lengths(self) -> list[int]:
        """Of the sequences in the pool."""
        return [FIRST, self.sizes.context, LAST]

    def rand(self, *shape: int) -> torch.Tensor:
        """Normal numbers in the model's type."""
        return torch.randn(*shape, device=self.device).to(self.dtype)

    def ints(self, values: list[int]) -> torch.Tensor:
        """[values] int32."""
        return torch.tensor(values, dtype=torch.int32, device=self.device)

    def rows(self) -> tuple[Pool, torch.Tensor, torch.Tensor]:
        """A pool, its slots and the last position of each."""
        pool = _pool(self.sizes, self.lengths, self.device, self.dtype)
        return pool, self.ints(list(range(ROWS))), self.ints([n - 1 for n in self.lengths])


Pairs = Iterator[tuple[str, torch.Tensor, torch.Tensor]]


def _error(found: torch.Tensor, expected: torch.Tensor) -> float:
    scale = float(expected.float().abs().max()) or 1.0
    return float((found.float() - expected.float()).abs().max()) / scale


def _pool(sizes: BenchSizes, lengths: list[int], device: torch.device, dtype: torch.dtype) -> Pool:
    config = sizes.model.speech_head
    counts = [-(-n // TOKENS) for n in lengths]
    blocks, layers = sum(counts), 2
    tables = torch.zeros(len(lengths), 2, max(counts), dtype=torch.int32)
    order = sorted(range(blocks), key=lambda i: i * SHUFFLE % (blocks + 1))
    for slot, count in enumerate(counts):
        mine = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32) * (2 * layers)
        tables[slot, 0, :count], tables[slot, 1, :count] = mine, mine + 1
    shape = (blocks, layers, 2, config.num_kv_heads, TOKENS, config.head_dim)
    return Pool(torch.randn(shape, device=device).to(dtype), tables.to(device))


def _choices(ids: int, device: torch.device) -> Choices:
    def full(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((ROWS,), value, dtype=dtype, device=device)

    return Choices(
        seen=(torch.rand(ROWS, ids, device=device) < 0.1).byte(), greedy=full(0, torch.bool),
        penalty=full(1.2, torch.float32), temperature=full(0.8, torch.float32), top_k=full(50, torch.int32),
        top_p=full(0.9, torch.float32), seeds=torch.arange(ROWS, device=device),
        steps=full(3, torch.int64), bans=torch.full((ROWS, 0, 2), -1, device=device), last=full(0, torch.int64),
        faulty=full(0, torch.bool),
    )  # fmt: skip


def _rows(bed: Bed) -> Pairs:
    config, (pool, slots, ends) = bed.sizes.model.speech_head, bed.rows()
    args = (bed.rand(ROWS, config.num_heads, config.head_dim), pool, slots, ends, 1)
    yield "attention of rows", bed.mine.attend_rows(*args), bed.twin.attend_rows(*args)


def _chunks(bed: Bed) -> Pairs:
    config, (pool, _, _) = bed.sizes.model.speech_head, bed.rows()
    begin = 7
    tiles = torch.tensor(cut_tiles([CHUNK]), dtype=torch.int32, device=bed.device)
    q = bed.rand(CHUNK, config.num_heads, config.head_dim)
    args = (q, pool, bed.ints([1] * CHUNK), bed.ints(list(range(begin, begin + CHUNK))), tiles, 1)
    yield "attention of chunks", bed.mine.attend_chunks(*args), bed.twin.attend_chunks(*args)


def _rotary(bed: Bed) -> Pairs:
    config, (pool, slots, ends) = bed.sizes.model.speech_head, bed.rows()
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

    matrix, rows = quantise(bed.rand(96, bed.width), kind), bed.rand(ROWS, bed.width)
    args = (rows, matrix.weight, matrix.scale)
    yield f"{name} product", fused(*args), scaled_product(*args)


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
    kind = torch.float16 if bed.dtype.itemsize == 2 else bed.dtype  # the flow's own 16 bit
    yield from flow_results(bed.sizes, bed.device, kind, bed.mine, bed.twin)


def _sampler(bed: Bed) -> Pairs:
    """Ids, of which none may differ."""
    choices, scores = _choices(bed.codes, bed.device), 3 * torch.randn(ROWS, bed.codes, device=bed.device)
    group = torch.randint(bed.codes, (ROWS, 5), device=bed.device)
    args = (scores, bed.ints(list(range(ROWS))), choices, group, 2)
    yield SAMPLER, bed.mine.choose(*args), bed.twin.choose(*args)


def _rules(bed: Bed) -> Pairs:
    """Ids and flags, of which none may differ."""
    yield RULES, accepted(bed.mine.accept, bed.device), accepted(bed.twin.accept, bed.device)


SAMPLER, RULES = EXACT = "sampler, ids", "rules of the answer"
#: What each is called when it cannot run -> the comparison.
COMPARISONS: dict[str, Callable[[Bed], Pairs]] = {
    "attention of rows": _rows, "attention of chunks": _chunks, "rotary and cache write": _rotary,
    "norm with residual": _norm, "SwiGLU": _swiglu, "group embedding": _group_embedding,
    "code embedding": _code_embedding, "Euler step": _euler, "snake": _snake, "int8 product": _int8,
    "FP8 product": _fp8, "norm, matrix, SwiGLU": _fused, "flow's transformer": _flow, SAMPLER: _sampler,
    RULES: _rules,
}  # fmt: skip


def run_checks(sizes: BenchSizes, device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """All of them, one after another: one that cannot run stops no other. A CPU's interpreter knows float32 only."""
    bed = Bed(sizes, device, dtype, kernel_ops(), twin_ops())
    for name, compare in COMPARISONS.items():
        torch.manual_seed(SEED)
        try:
            # Errors of the device show here and not in the next comparison.
            found = [(label, _error(mine, twin)) for label, mine, twin in compare(bed)]
        except Exception as error:
            yield Check(name, float("nan"), 0.0, explained(error))
            continue
        for label, value in found:
            yield Check(label, value, 0.0 if label in EXACT else TOLERANCES[dtype])


def explained(error: Exception) -> str:
    """Type and first words of an error."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}"
