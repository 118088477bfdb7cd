"""Paged pools with blocks in random order, and rows over them."""

from __future__ import annotations

import random

import torch

from kernels.paged_rows import Pool


def make_pool(device, lengths, kv_heads, dim, tokens, layers=2, dtype=torch.float32, seed=0):
    """Pool and tables for slots of these lengths; physical blocks are shuffled, K and V of random numbers."""
    counts = [-(-length // tokens) for length in lengths]
    blocks = list(range(sum(counts) + 3))
    random.Random(seed).shuffle(blocks)
    tables = torch.zeros(len(lengths), 2, max(counts) + 1, dtype=torch.int32)
    for slot, count in enumerate(counts):
        mine = torch.tensor([blocks.pop() for _ in range(count)], dtype=torch.int32) * (2 * layers)
        tables[slot, 0, :count], tables[slot, 1, :count] = mine, mine + 1
    memory = torch.randn(sum(counts) + 3, layers, 2, kv_heads, tokens, dim).to(dtype)
    return Pool(memory.to(device), tables.to(device))


def ints(values, device):
    return torch.tensor(values, dtype=torch.int32, device=device)
