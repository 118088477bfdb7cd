"""Embeddings, Euler step and snake against their twins, and the twins against the modules that have them today."""

import pytest
import torch

from kernels import embedding, ops, token2wav
from kernels.gpu import embedding as gpu_embedding
from kernels.gpu import token2wav as gpu_token2wav
from kernels.linear import Dense
from runtime.token2wav.vocoder.blocks import Snake


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("rows,width", [(1, 48), (5, 1500)])
@pytest.mark.parametrize("exact", [True, False])
def test_group_embedding(device, rows, width, exact, half):
    dtype = torch.float32 if exact else half
    text, codebook = (torch.randn(n, width, device=device).to(dtype) for n in (30, 40))
    projection = Dense((torch.randn(width, width, device=device) / width**0.5).to(dtype))
    ids, codes = torch.randint(30, (rows,), device=device), torch.randint(40, (rows, 5), device=device)
    fed = torch.arange(rows, device=device) % 2 == 0
    arguments = text, ids, codebook, codes, fed, projection
    found, expected = gpu_embedding.group_embedding(*arguments), embedding.group_embedding(*arguments)
    close(found, expected, 1e-5 if dtype == torch.float32 else 2e-2)
    assert torch.equal(found[~fed], text[ids[~fed]])


def test_add_embedding_of_strided_rows_and_ids(device):
    rows = torch.randn(3, 5, 70, device=device)
    table, groups = torch.randn(9, 70, device=device), torch.tensor([[1, 8], [2, 0], [4, 3]], device=device)
    ids = groups[:, -1]  # as the last codes of several groups lie
    close(gpu_embedding.add_embedding(rows[:, 2], table, ids), rows[:, 2] + table[ids])
    close(embedding.add_embedding(rows[:, 2], table, ids), rows[:, 2] + table[ids])


@pytest.mark.parametrize("shape", [(1, 3, 7), (2, 80, 61)])
def test_guided_step(device, shape):
    x, velocity = torch.randn(shape, device=device), torch.randn(2 * shape[0], *shape[1:], device=device)
    width = torch.tensor([0.07], device=device)
    close(gpu_token2wav.guided_step(x, velocity, width, 0.7), token2wav.guided_step(x, velocity, width, 0.7))


@pytest.mark.parametrize("shape", [(1, 4, 5), (2, 6, 2050)])
def test_snake(device, shape):
    x = 2 * torch.randn(shape, device=device)
    module = Snake(shape[1]).to(device)
    module.alpha.data += 0.3 * torch.randn(shape[1], device=device)
    expected = module(x)
    close(token2wav.snake(x, module.alpha), expected, 0.0)
    close(gpu_token2wav.snake(x, module.alpha.detach()), expected, 1e-5)  # a GPU joins products and sums


def test_both_sets_hold_every_operation():
    names = [name for name in vars(ops.Ops) if not name.startswith("_")]
    for table in (ops.twin_ops(), ops.kernel_ops()):
        assert all(callable(getattr(table, name)) for name in names)
        with pytest.raises(AttributeError):
            table.nothing  # noqa: B018
    assert len(names) == 20
