"""What only a GPU can show: recorded frames equal eager ones, one synchronisation per frame, golden ids in float32."""

import gc
from importlib.util import find_spec

import chat_data as data
import numpy as np
import pytest
import torch

from builders.parity import authors
from runtime.engines.options import EngineOptions
from runtime.families.fun_audio_chat.build import recorded_loop
from runtime.graphs.executor import CudaExecutor, EagerExecutor, gpu_device
from runtime.scheduling.stream import Prompt, Stream

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
NAMES = ["s2s_chirp_0p5s", "s2s_noise_2p3s", "s2s_tones_7s"]
OPTIONS = EngineOptions(3, 256, 768, 64, lead_s=1e9)


def stream(name, key):
    ids, embeds = data.run(name)["prompt_ids"], data.prefill(name)["audio_embeds"]
    prompt = Prompt(ids, embeds, np.flatnonzero(ids == data.config().text_ids.audio))
    return Stream(key, prompt, data.stream(name, embeds).answer)


def decode(executor):
    loop = recorded_loop(data.config(), OPTIONS, gpu_device(0), executor=executor)
    for key, name in enumerate(NAMES):
        loop.add(stream(name, key))
    found = {}
    while loop.scheduler.live or loop.scheduler.waiting:
        for item in loop.step():
            found.setdefault(item.stream.key, []).append((item.frame.text_ids[0], item.frame.codes))
    return found


def test_recorded_frames_equal_eager_ones_and_the_golden_ids():
    recorded = decode(CudaExecutor())
    assert recorded == decode(EagerExecutor("cuda"))
    for key, name in enumerate(NAMES):
        assert [text for text, _ in recorded[key]] == data.run(name)["text_ids"].tolist()
        assert [c for _, codes in recorded[key] for c in codes] == data.run(name)["speech_ids"].tolist()


def test_a_recording_outlives_others_that_nobody_wants_any_more():
    """Products with a deep sum: cuBLAS splits it, and keeps the parts in a workspace of the stream."""
    executor = CudaExecutor()
    x, weight = torch.randn(8, 1 << 15, device="cuda"), torch.randn(64, 1 << 15, device="cuda")
    found = torch.zeros(8, 64, device="cuda")
    work = executor.record(lambda: found.copy_(x @ weight.T), lambda: None)
    executor.record(lambda: found.copy_(x @ weight.T), lambda: None)
    gc.collect()
    torch.cuda.empty_cache()
    found.zero_()
    work()
    assert torch.allclose(found, x @ weight.T, rtol=1e-3, atol=1e-1)


def test_a_frame_asks_the_device_once():
    """Torch itself counts: with synchronisations forbidden only the wait for the ids before is left.

    A second stream joins meanwhile: its prompt is brought over and prefilled without a wait too.
    """
    loop = recorded_loop(data.config(), OPTIONS, gpu_device(0))
    loop.model.prepare()
    loop.add(stream(NAMES[0], 0))
    for _ in range(4):
        loop.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert all(len(loop.step()) == 1 for _ in range(4))
        loop.add(stream(NAMES[1], 1))
        assert max(len(loop.step()) for _ in range(6)) == 2
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("options", [["--dtype", "float32"], ["--dtype", "bfloat16"], ["--linear", "fp8"]])
def test_the_authors_runs(options):
    sound = ["--no-questions"] * (find_spec("soundfile") is None)  # a bare machine: only ids that come from files
    arguments = ["--model", str(data.CHECKPOINT), "--vectors", str(data.FOLDER), "--device", "cuda", *options, *sound]
    assert authors.main(arguments) == 0
