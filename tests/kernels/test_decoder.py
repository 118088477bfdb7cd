"""Norms, SwiGLU and the fused cache write against their twins; the twins against the CPU engine's own functions."""

import pytest
import torch
from pools import ints, make_pool

from kernels import decoder
from kernels.gpu import decoder as gpu

EPS = 1e-6


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rows,width", [(1, 64), (3, 48), (5, 1000), (2, 4096)])
@pytest.mark.parametrize("exact", [True, False])
def test_norms(device, rows, width, exact, half):
    dtype = torch.float32 if exact else half
    x, delta = (torch.randn(rows, width, device=device).to(dtype) for _ in range(2))
    weight = (1 + 0.1 * torch.randn(width, device=device)).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    close(gpu.rms_norm(x, weight, EPS), decoder.rms_norm(x, weight, EPS), tolerance)
    found, expected = gpu.add_rms_norm(x, delta, weight, EPS), decoder.add_rms_norm(x, delta, weight, EPS)
    assert torch.equal(found[0], expected[0])
    close(found[1], expected[1], tolerance)


@pytest.mark.parametrize("rows,width", [(1, 96), (4, 1500), (2, 1024)])
@pytest.mark.parametrize("exact", [True, False])
def test_swiglu(device, rows, width, exact, half):
    dtype = torch.float32 if exact else half
    x = 3 * torch.randn(rows, 2 * width, device=device).to(dtype)
    close(gpu.swiglu(x), decoder.swiglu(x), 1e-6 if dtype == torch.float32 else 2e-2)


@pytest.mark.parametrize("heads,kv_heads,dim,tokens", [(4, 2, 32, 8), (8, 8, 16, 4), (16, 4, 128, 32)])
@pytest.mark.parametrize("exact", [True, False])
def test_rotate_and_store(device, heads, kv_heads, dim, tokens, exact, half):
    """Queries, and exactly the lines of the pool that the rows own."""
    dtype = torch.float32 if exact else half
    mine, other = (make_pool(device, [40, 9, 70], kv_heads, dim, tokens, dtype=dtype) for _ in range(2))
    other.memory.copy_(mine.memory)
    slots, positions = ints([2, 0, 1, 2, 0], device), ints([69, 39, 8, 3, 0], device)
    mixed = torch.randn(5, heads + 2 * kv_heads, dim, device=device).to(dtype)
    norm = (1 + 0.1 * torch.randn(heads + kv_heads, dim, device=device)).to(dtype)
    angles = torch.randn(80, dim // 2, device=device).repeat(1, 2)
    rope = torch.stack([angles.cos(), angles.sin()], dim=1).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 4e-2
    before = mine.memory.clone()
    expected = decoder.rotate_and_store(mixed, norm, rope, mine, slots, positions, 1, EPS)
    close(gpu.rotate_and_store(mixed, norm, rope, other, slots, positions, 1, EPS), expected, tolerance)
    close(other.memory, mine.memory, tolerance)
    changed = (mine.memory != before).flatten(4).any(-1)  # [blocks, layers, 2, kv heads]
    assert changed.sum() == 2 * kv_heads * 4 + 2 * kv_heads and not changed[:, 0].any()
    assert torch.equal((other.memory != before), (mine.memory != before)) or dtype != torch.float32
