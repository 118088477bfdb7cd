"""Weight-only matrices: the kernel against its twin, the twin against full precision, and whole frames."""

import pytest
import torch

from kernels import quantised
from kernels.gpu import quantised as gpu
from kernels.linear import Dense

KINDS = [torch.int8, torch.float8_e4m3fn]


@pytest.mark.parametrize("rows,outputs,depth", [(1, 40, 64), (17, 100, 300), (3, 32, 513)])
@pytest.mark.parametrize("kind", KINDS)
def test_product(device, rows, outputs, depth, kind):
    if kind.is_floating_point and not quantised.knows_fp8(device):
        pytest.skip("this GPU has no FP8")
    x = torch.randn(rows, depth, device=device)
    matrix = quantised.quantise(torch.randn(outputs, depth, device=device), kind)
    expected = quantised.scaled_product(x, matrix.weight, matrix.scale)
    torch.testing.assert_close(gpu.scaled_product(x, matrix.weight, matrix.scale), expected, atol=2e-4, rtol=2e-4)


def test_row_tiles_of_a_weight_tile_are_neighbours(monkeypatch):
    """Programs start in the order of their first index: the second row tile finds the weights that the first read."""
    grids = []

    class Launched:
        def __getitem__(self, grid):
            grids.append(grid)
            return lambda *args, **options: None

    monkeypatch.setattr(gpu, "_scaled_product", Launched())
    rows, outputs = 3 * gpu.ROWS + 1, 5 * gpu.OUTPUTS
    gpu.scaled_product(torch.zeros(rows, 64), torch.zeros(outputs, 64, dtype=torch.int8), torch.ones(outputs))
    assert grids == [(4, 5)]


@pytest.mark.parametrize("kind,bound", [(torch.int8, 0.01), (torch.float8_e4m3fn, 0.04)])
def test_error_of_a_matrix(kind, bound):
    """Relative to the norm of the exact product; random numbers, so rounding errors add up like a walk."""
    weight, x = torch.randn(96, 512), torch.randn(20, 512)
    exact, found = Dense(weight)(x), quantised.quantise(weight, kind)(x)
    error = float((found - exact).norm() / exact.norm())
    assert bound / 10 < error < bound


def test_many_rows_take_the_wide_product():
    matrix = quantised.quantise(torch.randn(8, 16), torch.int8)
    x = torch.randn(quantised.FEW_ROWS + 1, 16)
    torch.testing.assert_close(matrix(x), quantised.scaled_product(x, matrix.weight, matrix.scale))
    assert matrix.nbytes == 8 * 16 + 8 * 4


def test_rows_of_zeros_and_unknown_kinds():
    assert not quantised.quantise(torch.zeros(3, 4), torch.int8)(torch.randn(2, 4)).any()
    with pytest.raises(ValueError, match="'int4' is not one of"):
        quantised.matrix_maker("int4")
