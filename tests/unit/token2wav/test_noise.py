"""Windows of stored noise: on a device they are those of the host, also where the buffer wraps."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from runtime.graphs.memory import TorchMemory
from runtime.token2wav.flow.device_noise import DeviceNoise
from runtime.token2wav.noise import Noise

LENGTH = 40


@given(st.lists(st.integers(0, 5 * LENGTH), min_size=1, max_size=4), st.integers(1, 2 * LENGTH))
def test_a_device_gives_what_the_host_gives(tmp_path_factory, begins, span):
    path = tmp_path_factory.mktemp("noise") / "noise.npy"
    np.save(path, np.random.default_rng(0).random((LENGTH, 3), np.float32))
    noise = Noise(path, axis=0)
    found = DeviceNoise(noise, TorchMemory("cpu")).windows(begins, span)
    assert found.shape == (len(begins), span, 3) and found.dtype == torch.float32
    assert np.array_equal(found.numpy(), noise.windows(begins, span))
