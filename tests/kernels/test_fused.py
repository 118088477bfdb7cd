"""A matrix with its neighbours in one launch, against its twin; golden ids through the fused stack."""

import chat_data as data
import pytest
import torch
from test_kernel_frames import golden_stream

from kernels import fused
from kernels.gpu import fused as gpu
from kernels.linear import Dense
from kernels.quantised import quantise
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import recorded_loop

EPS = 1e-6


@pytest.mark.parametrize("rows,depth,outputs", [(1, 64, 40), (5, 300, 24), (16, 513, 17)])
@pytest.mark.parametrize("norm,residual,gated", [(1, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("narrow", [False, True])
def test_every_combination(device, monkeypatch, rows, depth, outputs, norm, residual, gated, narrow):
    monkeypatch.setattr(gpu, "FEW_PROGRAMS", 1000 if narrow else 0)
    x = torch.randn(rows, depth, device=device)
    weight = torch.randn(outputs * (1 + gated), depth, device=device) / depth**0.5
    gain = 1 + 0.1 * torch.randn(depth, device=device) if norm else None
    extra = torch.randn(rows, outputs, device=device) if residual else None
    for matrix in (Dense(weight), quantise(weight, torch.int8)):
        expected = fused.fused_linear(x, matrix, gain, EPS, extra, bool(gated))
        found = gpu.fused_linear(x, matrix, gain, EPS, extra, bool(gated))
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_in_16_bit(device, half):
    x, weight = torch.randn(3, 128, device=device).to(half), torch.randn(64, 128, device=device).to(half)
    gain = (1 + 0.1 * torch.randn(128, device=device)).to(half)
    matrix = Dense(weight / 16)
    expected = fused.fused_linear(x, matrix, gain, EPS, None, True)
    found = gpu.fused_linear(x, matrix, gain, EPS, None, True)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_matrices_of_few_outputs_fill_a_device():
    """Out and down of the speech head have 1024 outputs; those of the backbone 4096."""
    tiles = {outputs: gpu.tile_for(outputs, 2) for outputs in (1024, 2032, 2048, 4096)}
    assert tiles == {1024: (8, 512), 2032: (8, 512), 2048: (16, 256), 4096: (16, 256)}
    assert gpu.tile_for(1024, 4) == (8, 256), "rows of 32 bit take twice the memory"
    assert all(-(-outputs // across) >= 128 for outputs, (across, _) in tiles.items())


@pytest.mark.parametrize("outputs", [24, 2050])
def test_a_row_does_not_depend_on_its_company(device, outputs):
    """To the last bit, and from run to run."""
    x, extra = torch.randn(7, 96, device=device), torch.randn(7, outputs, device=device)
    matrix = Dense(torch.randn(outputs, 96, device=device))
    together = gpu.fused_linear(x, matrix, residual=extra)
    assert torch.equal(gpu.fused_linear(x, matrix, residual=extra), together)
    for count in (1, 4):  # the same places: the interpreter's product sums in another order at another one
        assert torch.equal(gpu.fused_linear(x[:count], matrix, residual=extra[:count]), together[:count])


def test_golden_ids_through_the_fused_stack():
    name = "s2s_chirp_0p5s"
    loop = recorded_loop(data.config(), EngineOptions(1, 256, 256, 64, fused=True), torch.device("cpu"))
    loop.add(golden_stream(name))
    frames = [item.frame for _ in range(14) for item in loop.step()]
    assert [frame.text_ids[0] for frame in frames] == data.run(name)["text_ids"][: len(frames)].tolist()
    assert len(frames) == 13
