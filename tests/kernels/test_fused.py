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
from runtime.frames.build import build_overlap_loop

EPS = 1e-6


@pytest.mark.parametrize("rows,depth,outputs", [(1, 64, 40), (5, 300, 24), (16, 513, 17)])
@pytest.mark.parametrize("norm,residual,gated", [(1, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 1), (0, 0, 0)])
def test_every_combination(device, rows, depth, outputs, norm, residual, gated):
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


def test_golden_ids_through_the_fused_stack():
    name = "s2s_chirp_0p5s"
    loop = build_overlap_loop(data.config(), EngineOptions(1, 256, 256, 64, fused=True), torch.device("cpu"))
    loop.add(golden_stream(name))
    frames = [item.frame for _ in range(14) for item in loop.step()]
    assert [frame.text_id for frame in frames] == data.run(name)["text_ids"][: len(frames)].tolist()
    assert len(frames) == 13
