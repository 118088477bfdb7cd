"""Stages whose work stays on a device, on the CPU: mel and sound of the host stages, alone and together."""

import numpy as np
import pytest
import token2wav_data as data
import torch
from test_decode import encoder
from token2wav_stages import MAX_STREAMS, call, render, tokens_of, torch_stages

from runtime.contracts import ChunkFlag
from runtime.device_graphs import DeviceGraph, encoder_shapes
from runtime.frames.executor import EagerExecutor
from runtime.token2wav.device_build import device_flow, device_vocoder

pytestmark = pytest.mark.golden
CPU = torch.device("cpu")
CASE = next(name.removesuffix("_tokens") for name in data.vectors() if name.endswith("_tokens"))


def device_stages(folder, window=8, precision="float32"):
    cosyvoice = data.nets().config.directory
    flow = device_flow(folder, cosyvoice, CPU, MAX_STREAMS, window, precision)
    return flow, device_vocoder(folder, cosyvoice, CPU, MAX_STREAMS)


@pytest.mark.parametrize("window", [1, 8])
def test_mel_and_sound_equal_the_host_stages(exported, window):
    tokens = (tokens_of(CASE) * 4)[:130]
    expected = render(torch_stages(exported, window), tokens, (15, 10, 25))
    found = render(device_stages(exported, window), tokens, (15, 10, 25))
    for mine, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-4)
    for mine, theirs in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)


def test_streams_together_equal_streams_alone(exported):
    """Three rows in a bucket of four, different lengths; one stream ends, its rows are used again."""
    tokens = (tokens_of(CASE) * 3)[:60]
    parts = {1: tokens[:33], 2: tokens[5:20], 3: tokens[10:60]}
    together, host = device_stages(exported), torch_stages(exported)
    for stages in (together, host):
        call(stages, [9], [ChunkFlag.START | ChunkFlag.FINAL], [tokens[:30]])
    flags = [ChunkFlag.START] * 3
    found = call(together, list(parts), flags, list(parts.values()))
    expected = call(host, list(parts), flags, list(parts.values()))
    np.testing.assert_array_equal(found["mel_lengths"], expected["mel_lengths"])
    np.testing.assert_allclose(found["mel"], expected["mel"], atol=2e-4)
    finals = [ChunkFlag.FINAL] * 3
    last = [call(stages, list(parts), finals, [tokens[:7]] * 3) for stages in (together, host)]
    np.testing.assert_allclose(last[0]["mel"], last[1]["mel"], atol=2e-4)
    assert together[0].held_bytes == 0 and len(together[0].cache._free_tails) == MAX_STREAMS


def test_half_precision_is_close(exported):
    tokens = tokens_of(CASE)[:40]
    exact = np.concatenate(render(device_stages(exported), tokens, (15, 10, 25))[0], axis=1)
    half = np.concatenate(render(device_stages(exported, precision="bfloat16"), tokens, (15, 10, 25))[0], axis=1)
    error = np.abs(half - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.05


def test_padded_windows_of_the_encoder_change_nothing():
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(3, 128, 200, generator=generator).numpy()
    arrays = {"mel": mel, "frames": np.array([200, 120, 7]), "keep": np.array([50, 30, 2])}
    graph = DeviceGraph(EagerExecutor(), encoder(), ("groups",), encoder_shapes)
    with torch.inference_mode():
        expected = encoder()(*map(torch.from_numpy, arrays.values())).numpy()
    found = graph.run(arrays)["groups"]
    assert found.shape == expected.shape, "the fourth row, which fills the bucket, stays inside"
    np.testing.assert_allclose(found, expected, atol=1e-5)
