"""The flow's recordings and kernels on a GPU against the exported step on the CPU."""

import numpy as np
import pytest
import torch
from test_device_flow import call, device_flow, folder  # noqa: F401
from token2wav_stages import tokens_of, torch_stages

from runtime.contracts import ChunkFlag
from runtime.graphs.executor import executor_for, gpu_device

pytestmark = [
    pytest.mark.requires_gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CHUNKS = (33, 25, 90, 12)  # tokens; the third renders more blocks than the window holds


@pytest.mark.parametrize(("precision", "part"), [("float32", 1e-3), ("float16", 0.05)])
@pytest.mark.parametrize("window", [1, 8])
def test_mel_of_recorded_chunks(folder, window, precision, part):  # noqa: F811
    """Chunks with few and many cached blocks; the difference as a part of the largest value."""
    host = torch_stages(folder, window)[0]
    device = device_flow(folder, window, precision, executor=executor_for(gpu_device(0)))
    tokens, begin = (tokens_of("T063") * 3)[: sum(CHUNKS)], 0
    for number, count in enumerate(CHUNKS):
        flag = ChunkFlag.START * (number == 0) | ChunkFlag.FINAL * (number + 1 == len(CHUNKS))
        chunk = tokens[begin : begin + count]
        begin += count
        expected, found = call(host, 1, flag, chunk), call(device, 1, flag, chunk)
        assert np.abs(found - expected).max() <= part * np.abs(expected).max()
    assert not device.states
