"""Paged attention kernels against their twins, and the twins against attention over plain tensors."""

import pytest
import torch
import torch.nn.functional as F
from pools import ints, make_pool

from kernels import paged_rows
from kernels.gpu import chunk_attention, rows_attention
from kernels.paged_rows import Pool, cut_tiles

SHAPES = [(4, 2, 32, 8), (8, 8, 16, 16), (32, 8, 128, 32), (6, 2, 64, 4)]  # heads, KV heads, head size, block tokens


def close(found, expected, tolerance):
    torch.testing.assert_close(found.float(), expected.float(), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("heads,kv_heads,dim,tokens", SHAPES)
@pytest.mark.parametrize("splits", [1, 4])
def test_rows(device, heads, kv_heads, dim, tokens, splits):
    lengths = [1, 130, 65, 7]
    for seed in (0, 1) if dim < 64 else (2,):
        pool = make_pool(device, lengths, kv_heads, dim, tokens, seed=seed)
        order = [3, 0, 1, 2]
        q = torch.randn(len(order), heads, dim, device=device)
        slots, positions = ints(order, device), ints([lengths[s] - 1 for s in order], device)
        expected = paged_rows.attend_rows(q, pool, slots, positions, 1)
        close(rows_attention.attend_rows(q, pool, slots, positions, 1, splits), expected, 2e-5)


def test_rows_in_16_bit(device, half):
    pool = make_pool(device, [40, 9], 2, 32, 8, dtype=half)
    q = torch.randn(2, 8, 32, device=device).to(half)
    slots, positions = ints([1, 0], device), ints([8, 39], device)
    expected = paged_rows.attend_rows(q, pool, slots, positions, 0)
    close(rows_attention.attend_rows(q, pool, slots, positions, 0), expected, 2e-2)


@pytest.mark.parametrize("heads,kv_heads,dim,tokens", SHAPES[:3])
def test_chunks(device, heads, kv_heads, dim, tokens):
    """First and later chunks of odd lengths, one of a single row, packed together."""
    chunks = [(0, 0, 21), (2, 30, 17), (1, 5, 1)]  # slot, first position, rows
    pool = make_pool(device, [21, 6, 70], kv_heads, dim, tokens)
    slots = ints([slot for slot, _, rows in chunks for _ in range(rows)], device)
    positions = ints([begin + i for _, begin, rows in chunks for i in range(rows)], device)
    tiles = ints(cut_tiles([rows for _, _, rows in chunks]), device)
    q = torch.randn(len(slots), heads, dim, device=device)
    expected = paged_rows.attend_chunks(q, pool, slots, positions, tiles, 1)
    close(chunk_attention.attend_chunks(q, pool, slots, positions, tiles, 1), expected, 2e-5)
    # Row by row it is the attention of generation.
    close(paged_rows.attend_rows(q, pool, slots, positions, 1), expected, 2e-5)


def test_the_twin_is_plain_attention(device):
    pool = make_pool(device, [11], 2, 16, 4)
    k, v = pool.gather(0, 11, 1)
    q = torch.randn(1, 4, 16, device=device)
    expected = F.scaled_dot_product_attention(q[0, :, None], k.repeat_interleave(2, 0), v.repeat_interleave(2, 0))
    close(paged_rows.attend_rows(q, pool, ints([0], device), ints([10], device), 1)[0], expected.flatten(), 1e-5)
    block = int(pool.tables[0, 0, 1]) // 4  # two layers, K and V
    assert torch.equal(k[:, 4:8], pool.memory[block, 1, 0])


def test_sizes_that_kernels_cannot_take(device):
    pool = make_pool(device, [4], 1, 24, 4)
    with pytest.raises(ValueError, match="24 is not a power of two"):
        rows_attention.attend_rows(torch.zeros(1, 1, 24, device=device), pool, ints([0], device), ints([3], device), 0)
    with pytest.raises(ValueError, match="no paged pool"):
        Pool(torch.zeros(2, 2), torch.zeros(1, 2, 1))
