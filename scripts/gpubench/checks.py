"""Every kernel against its twin on the device, at the sizes of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from gpubench.sizes import BenchSizes
from kernels.accept import Answers, Rules
from kernels.choice import Choices
from kernels.linear import Dense
from kernels.ops import kernel_ops, twin_ops
from kernels.paged_rows import Pool, cut_tiles
from kernels.quantised import knows_fp8, quantise, scaled_product

ROWS, TOKENS = 3, 32
SHUFFLE = 7  # block numbers are spread by this step
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2}  # of the largest value; TF32 is off


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: largest difference as a fraction of the largest value."""

    name: str
    error: float
    bound: float

    @property
    def passed(self) -> bool:
        """Written so that a NaN fails."""
        return bool(self.error <= self.bound)


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


def answers(device: torch.device) -> tuple[Answers, Rules]:
    """Slots that begin to speak, speak, and end, with nobody's behind them; two ids of either kind."""

    def flags(*values: int) -> torch.Tensor:
        return torch.tensor([*values, 0], dtype=torch.bool, device=device)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.ones(ROWS + 1, *shape, dtype=torch.int64, device=device)

    seen = [torch.zeros(ROWS + 1, 2, dtype=torch.uint8, device=device) for _ in range(2)]
    codes = numbers(5)
    codes[1] = 0
    state = Answers(
        numbers(), codes, numbers(), numbers(), numbers() - 1,
        flags(1, 0, 0), flags(1, 1, 1), flags(0, 1, 1), flags(0, 1, 1), flags(0, 0, 1), *seen,
    )  # fmt: skip
    return state, Rules(audio_bos=0, audio_eos=0, speech_eos=1, not_finite=-1)


def _accepted(run: Callable[..., None], slots: torch.Tensor, device: torch.device) -> torch.Tensor:
    """All that the rules leave behind, in one row."""
    state, rules = answers(device)
    found = torch.zeros(len(slots), 6, dtype=torch.int64, device=device)
    run(state, rules, slots, found)
    left = [getattr(state, field.name)[:-1].flatten().long() for field in fields(state)]
    return torch.cat([found.flatten(), *left])


def run_checks(sizes: BenchSizes, device: torch.device, dtype: torch.dtype) -> list[Check]:
    """All of them; the interpreter of a CPU knows float32 only."""
    torch.manual_seed(0)
    mine, twin, bound = kernel_ops(), twin_ops(), TOLERANCES[dtype]
    config, codes = sizes.model.speech_head, sizes.model.speech_ids.codebook_size
    lengths = [5, sizes.context, 70]

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def ints(values: list[int]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    pool, slots, ends = _pool(sizes, lengths, device, dtype), ints([0, 1, 2]), ints([n - 1 for n in lengths])
    q = rand(ROWS, config.num_heads, config.head_dim)
    found = [
        ("attention of rows", mine.attend_rows(q, pool, slots, ends, 1), twin.attend_rows(q, pool, slots, ends, 1))
    ]
    chunk = 21
    args = (
        ints([1] * chunk),
        ints(list(range(7, 7 + chunk))),
        torch.tensor(cut_tiles([chunk]), dtype=torch.int32, device=device),
        1,
    )
    q = rand(chunk, config.num_heads, config.head_dim)
    found.append(("attention of chunks", mine.attend_chunks(q, pool, *args), twin.attend_chunks(q, pool, *args)))
    heads = config.num_heads + 2 * config.num_kv_heads
    mixed, norm = rand(ROWS, heads, config.head_dim), rand(config.num_heads + config.num_kv_heads, config.head_dim)
    rope = rand(max(lengths), 2, config.head_dim)
    turn = (mixed, norm, rope, pool, slots, ends, 1, 1e-6)
    expected = twin.rotate_and_store(*turn)
    kept = pool.memory.clone()
    found.append(("rotary of queries", mine.rotate_and_store(*turn), expected))
    found.append(("cache write", pool.memory, kept))
    width = sizes.model.backbone.hidden_size
    x, delta, gain = rand(ROWS, width), rand(ROWS, width), rand(width)
    both = zip(mine.add_rms_norm(x, delta, gain, 1e-6), twin.add_rms_norm(x, delta, gain, 1e-6), strict=True)
    found += [(f"norm with residual, output {i}", a, b) for i, (a, b) in enumerate(both)]
    found.append(("SwiGLU", mine.swiglu(rand(ROWS, 2 * width)), torch.empty(0)))
    wide = rand(ROWS, 2 * width)
    found[-1] = ("SwiGLU", mine.swiglu(wide), twin.swiglu(wide))
    table, codebook, fed = rand(40, width), rand(codes, width), torch.arange(ROWS, device=device) % 2 == 0
    ids, group = torch.arange(ROWS, device=device), torch.randint(codes, (ROWS, 5), device=device)
    embed = (table, ids, codebook, group, fed, Dense(rand(width, width) / width**0.5))
    found.append(("group embedding", mine.group_embedding(*embed), twin.group_embedding(*embed)))
    last = (rand(ROWS, 5, width)[:, 2], table, torch.randint(40, (ROWS, 5), device=device)[:, -1])
    found.append(("code embedding", mine.add_embedding(*last), twin.add_embedding(*last)))
    x, velocity = torch.randn(2, 80, 61, device=device), torch.randn(4, 80, 61, device=device)
    euler = (x, velocity, torch.tensor([0.1], device=device), 0.7)
    found.append(("Euler step", mine.guided_step(*euler), twin.guided_step(*euler)))
    alpha = torch.rand(80, device=device) + 0.5
    found.append(("snake", mine.snake(x, alpha), twin.snake(x, alpha)))
    from kernels.gpu.quantised import scaled_product as fused

    for name, kind in (("int8", torch.int8), ("FP8", torch.float8_e4m3fn)):
        if kind.is_floating_point and not knows_fp8(device):
            continue
        matrix, rows = quantise(rand(96, width), kind), rand(ROWS, width)
        found.append(
            (
                f"{name} product",
                fused(rows, matrix.weight, matrix.scale),
                scaled_product(rows, matrix.weight, matrix.scale),
            )
        )
    matrix, rows, gain = Dense(rand(2 * 96, width) / width**0.5), rand(ROWS, width), 1 + 0.1 * rand(width)
    found.append(
        ("norm, matrix, SwiGLU", mine.fused_linear(rows, matrix, gain, 1e-6, None, True),
         twin.fused_linear(rows, matrix, gain, 1e-6, None, True))
    )  # fmt: skip
    checks = [Check(name, _error(a, b), bound) for name, a, b in found]
    choices, scores = _choices(codes, device), 3 * torch.randn(ROWS, codes, device=device)
    same = mine.choose(scores, slots, choices, group, 2) == twin.choose(scores, slots, choices, group, 2)
    checks.append(Check("sampler, ids", float((~same).sum()), 0.0))
    mixed_up = _accepted(mine.accept, slots, device) != _accepted(twin.accept, slots, device)
    return [*checks, Check("rules of the answer", float(mixed_up.sum()), 0.0)]
