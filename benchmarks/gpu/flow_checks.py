"""The operations of the flow's transformer against their twins, at its sizes."""

from __future__ import annotations

import torch

from builders.released import BenchSizes
from kernels.flow import FlowPages
from kernels.ops import Ops
from runtime.token2wav.flow.dit import NORM_EPS
from runtime.token2wav.flow.past import rotary

STREAMS, BLOCKS, SLOTS = 2, 2, 3
NONE = -1  # no block lies in a slot
Result = tuple[str, torch.Tensor, torch.Tensor]
Seen = tuple[torch.Tensor, torch.Tensor, torch.Tensor, FlowPages]


def flow_dtype(dtype: torch.dtype) -> torch.dtype:
    """The flow's own type of 16 bit where the language side has one."""
    return torch.float16 if dtype.itemsize == 2 else dtype


def flow_results(sizes: BenchSizes, device: torch.device, dtype: torch.dtype, mine: Ops, twin: Ops) -> list[Result]:
    """Name, what a kernel finds and what its twin finds. Two streams, with a full table and with an empty one."""
    config = sizes.flow
    length, block = BLOCKS * config.block_frames, (2, 2, config.heads, config.block_frames, config.head_dim)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device)

    x, parts = rand(2 * STREAMS * length, config.dim), rand(3, config.dim)
    norm = (x, rand(*x.shape).to(dtype), *parts, NORM_EPS, dtype)
    both = zip(mine.modulated_norm(*norm), twin.modulated_norm(*norm), strict=True)
    found = [(f"norm of the flow, output {i}", a, b) for i, (a, b) in enumerate(both)]
    mixed = rand(2 * STREAMS * length, 3 * config.inner).to(dtype)
    positions = torch.arange(length, device=device).repeat(STREAMS, 1)
    rope = rotary(positions, 1.0 / (1 + torch.arange(config.head_dim // 2, device=device)))
    packed, expected = (torch.zeros(STREAMS * BLOCKS, *block, dtype=dtype, device=device) for _ in range(2))
    q = twin.pack_heads(mixed, rope, expected)
    found += [
        ("queries of the flow", mine.pack_heads(mixed, rope, packed), q),
        ("blocks of the flow", packed, expected),
    ]
    seen = flow_pages(sizes, device, dtype, STREAMS, BLOCKS)
    return [*found, ("attention of the flow", mine.attend_blocks(*seen), twin.attend_blocks(*seen))]


def flow_pages(sizes: BenchSizes, device: torch.device, dtype: torch.dtype, streams: int, blocks: int) -> Seen:
    """What ``attend_blocks`` takes: full tables and empty ones by turns, the padding slot full of NaN."""
    config = sizes.flow
    frames, length = config.block_frames, blocks * config.block_frames
    block = (2, 2, config.heads, frames, config.head_dim)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=device).to(dtype)

    def ints(full: list[int], empty: list[int]) -> torch.Tensor:
        return torch.tensor([empty if stream % 2 else full for stream in range(streams)], device=device)

    cache = rand(SLOTS + 1, *block)
    cache[SLOTS] = torch.nan
    pages = FlowPages(
        ints([2, 0, 1], [SLOTS] * SLOTS), ints([3, 1, 2], [NONE] * SLOTS),
        ints([4 * frames], [0])[:, 0], ints([length], [length - 9])[:, 0], SLOTS,
    )  # fmt: skip
    q = torch.randn(2 * streams, length, config.heads, config.head_dim, device=device) * config.head_dim**-0.5
    return q.to(dtype), cache, rand(streams * blocks, *block), pages
