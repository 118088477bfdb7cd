"""Stages whose work stays on a device, on the CPU: mel and sound of the host stages, alone and together."""

import numpy as np
import pytest
import token2wav_data as data
import torch
from test_decode import encoder
from token2wav_stages import MAX_STREAMS, call, render, tokens_of, torch_stages

from runtime.contracts import ChunkFlag
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.encoder_sizes import encoder_rule
from runtime.graphs import onnx_cuda as onnx_device
from runtime.graphs.executor import EagerExecutor
from runtime.graphs.onnx import OnnxGraph
from runtime.graphs.recorded import DeviceGraph
from runtime.token2wav.device_build import device_flow, device_vocoder
from runtime.token2wav.layout import VOCODER_GRAPH, Sizes

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


def test_no_stream_waits_for_a_recording(exported):
    """Whatever tokens come, in chunks of any length and up to three streams together, the flow has the size ready."""
    flow = device_stages(exported)[0]
    flow.prepare(3)
    ready = set(flow.recordings)
    assert len(ready) == 3 * 4, "rows times blocks"
    tokens, rng = tokens_of(CASE), np.random.default_rng(0)
    for flag in (ChunkFlag.START, ChunkFlag.CONTINUE, ChunkFlag.CONTINUE, ChunkFlag.FINAL):
        for count in (1, 2, 3):
            chunks = [(tokens * 9)[: int(n)] for n in rng.integers(1, 300, count)]
            streams = [10 * count + i for i in range(count)]
            flow.run(
                {
                    "stream_ids": np.array(streams), "chunk_flags": np.full(count, int(flag), np.int32),
                    "voices": np.array([data.VOICE.encode()] * count, np.object_),
                    "tokens": np.array([t for chunk in chunks for t in chunk], np.int32),
                    "token_lengths": np.array([len(chunk) for chunk in chunks], np.int32),
                }
            )  # fmt: skip
    assert set(flow.recordings) == ready


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
    graph = DeviceGraph(EagerExecutor(), encoder(), ("groups",), encoder_rule)
    with torch.inference_mode():
        expected = encoder()(*map(torch.from_numpy, arrays.values())).numpy()
    found = graph.run(arrays)["groups"]
    assert found.shape == expected.shape, "the fourth row, which fills the bucket, stays inside"
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_exported_vocoder_bound_to_device_memory_equals_the_others(exported, monkeypatch):
    """On the CPU's provider, which takes the same bindings as the GPU's: three rows in a bucket of four."""
    monkeypatch.setattr(onnx_device.prefers_onnx, "__defaults__", ("CPUExecutionProvider",))
    made, bound = [], onnx_device.OnnxModule.__call__
    monkeypatch.setattr(
        onnx_device.OnnxModule, "__call__", lambda self, **inputs: made.append(len(inputs)) or bound(self, **inputs)
    )
    cosyvoice = data.nets().config.directory
    vocoder = device_vocoder(exported, cosyvoice, CPU, MAX_STREAMS, engine="auto")
    flow, torch_vocoder = device_stages(exported)
    tokens = (tokens_of(CASE) * 3)[:90]
    parts = {1: tokens[:33], 2: tokens[5:20], 3: tokens[10:60]}
    expected = call((flow, torch_vocoder), list(parts), [ChunkFlag.START | ChunkFlag.FINAL] * 3, list(parts.values()))
    found = call((flow, vocoder), list(parts), [ChunkFlag.START | ChunkFlag.FINAL] * 3, list(parts.values()))
    assert made and set(made) == {7}
    np.testing.assert_array_equal(found["audio_lengths"], expected["audio_lengths"])
    np.testing.assert_allclose(found["audio"], expected["audio"], atol=2e-3)


def test_bound_graphs_give_what_named_arrays_give(exported):
    """The same file, the same provider: equal to the last bit, whatever sizes came before."""
    module = onnx_device.OnnxModule(exported / VOCODER_GRAPH, CPU)
    plain = OnnxGraph(exported / VOCODER_GRAPH, 1)
    sizes, rng = Sizes.read(exported), np.random.default_rng(0)
    for rows, frames in ((1, 40), (2, 24), (1, 40)):
        full = np.full(rows, frames)
        arrays = {
            "mel_pitch": rng.standard_normal((rows, sizes.mel_bins, frames + 3)).astype(np.float32),
            "mel": rng.standard_normal((rows, sizes.mel_bins, frames + 4)).astype(np.float32),
            "turns": np.zeros((rows, sizes.harmonics), np.float32),
            "noise": rng.random((rows, frames * sizes.frame_samples, sizes.harmonics), np.float32),
            "lead": 0 * full, "frames": full, "source_frames": full,
        }  # fmt: skip
        expected = plain.run(arrays)
        found = module(**{name: torch.from_numpy(array) for name, array in arrays.items()})
        for name, tensor in zip(module.outputs, found, strict=True):
            np.testing.assert_array_equal(tensor.numpy(), expected[name])


def test_a_provider_that_is_not_there():
    absent = ("token2wav.engine", "onnx", "NoSuchExecutionProvider")
    with pytest.raises(BuildError, match=r"token2wav.engine: is onnx, .* has no NoSuch.*; install onnxruntime-gpu"):
        onnx_device.prefers_onnx(*absent)
    assert not onnx_device.prefers_onnx("", "auto", "NoSuchExecutionProvider")
    assert not onnx_device.prefers_onnx("", "torch", "CPUExecutionProvider")
    assert onnx_device.prefers_onnx("", "onnx", "CPUExecutionProvider")
