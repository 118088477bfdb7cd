"""Where kernels are compared: sizes, device, type, both sets of operations, and what they work on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from builders.released import BenchSizes
from kernels.choice import Choices
from kernels.ops import Ops
from kernels.paged_rows import Pool
from runtime.checkpoint.decoder import DecoderConfig

ROWS, TOKENS, LAYERS = 3, 32, 2
FIRST, LAST = 5, 70  # lengths of the sequences beside one of the sizes' context
SHUFFLE = 7  # block numbers are spread by this step


@dataclass(frozen=True, slots=True)
class Bed:
    """A place to compare kernels in."""

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

    def rows(self, config: DecoderConfig, rows: int = ROWS) -> tuple[Pool, torch.Tensor, torch.Tensor]:
        """A pool for a stack, its slots and the last position of each; more rows than slots take them in turns."""
        slots = [row % ROWS for row in range(rows)]
        pool = pool_of(config, self.lengths, self.device, self.dtype)
        return pool, self.ints(slots), self.ints([self.lengths[slot] - 1 for slot in slots])


Pairs = Iterator[tuple[str, torch.Tensor, torch.Tensor]]


def pool_of(config: DecoderConfig, lengths: list[int], device: torch.device, dtype: torch.dtype) -> Pool:
    """Random keys and values of sequences of these lengths, in blocks that lie in any order."""
    counts = [-(-n // TOKENS) for n in lengths]
    blocks, layers = sum(counts), LAYERS
    tables = torch.zeros(len(lengths), 2, max(counts), dtype=torch.int32)
    order = sorted(range(blocks), key=lambda i: i * SHUFFLE % (blocks + 1))
    for slot, count in enumerate(counts):
        mine = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32) * (2 * layers)
        tables[slot, 0, :count], tables[slot, 1, :count] = mine, mine + 1
    shape = (blocks, layers, 2, config.num_kv_heads, TOKENS, config.head_dim)
    return Pool(torch.randn(shape, device=device).to(dtype), tables.to(device))


def choices_of(ids: int, device: torch.device, greedy: bool = False, top_k: int = 50) -> Choices:
    """What decides ``ROWS`` rows of so many ids."""

    def full(value: float, dtype: torch.dtype) -> torch.Tensor:
        return torch.full((ROWS,), value, dtype=dtype, device=device)

    return Choices(
        seen=(torch.rand(ROWS, ids, device=device) < 0.1).byte(), greedy=full(greedy, torch.bool),
        penalty=full(1.2, torch.float32), temperature=full(0.8, torch.float32), top_k=full(top_k, torch.int32),
        top_p=full(0.9, torch.float32), seeds=torch.arange(ROWS, device=device),
        steps=full(3, torch.int64), bans=torch.full((ROWS, 0, 2), -1, device=device), last=full(0, torch.int64),
        faulty=full(0, torch.bool),
    )  # fmt: skip
