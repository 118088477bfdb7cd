"""The flow on a device (here the CPU) by itself: its launches, and what one stream leaves behind for another."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import token2wav_data as data
import torch
from token2wav_stages import MAX_STREAMS, tokens_of, torch_stages
from torch.utils._python_dispatch import TorchDispatchMode

from builders import export_token2wav
from kernels.flow import FlowPages
from kernels.ops import kernel_ops, twin_ops
from runtime.contracts import FLOW_FAILED, ChunkFlag
from runtime.graphs.executor import EagerExecutor
from runtime.token2wav.device_build import assemble_flow
from runtime.token2wav.flow.device_step import DeviceStep
from runtime.token2wav.flow.net import EulerStep
from runtime.token2wav.layout import MEL_NOISE, NO_BLOCK, Sizes
from runtime.token2wav.noise import Noise

pytestmark = pytest.mark.golden
WHOLE = ChunkFlag.START | ChunkFlag.FINAL
BROKEN = "broken"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the export writes beside its graphs, which take minutes."""
    path = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_token2wav, "_export_parts", lambda *_: [])
        export_token2wav.export_token2wav(data.nets().config.directory, path, None, noise_seconds=10)
    return path


def device_flow(folder, window=2, precision="float32", ops=None, steps=10, executor=None):
    """The stage with the voices ``data.VOICE`` and ``BROKEN``, whose vector is not finite."""
    voice = data.nets().voice[0].numpy()
    voices = {data.VOICE: voice, BROKEN: np.full_like(voice, np.nan)}
    flow, noise = deepcopy(data.nets().flow), Noise(folder / MEL_NOISE, axis=1)
    sizes = replace(Sizes.read(folder), euler_steps=steps)
    executor = executor or EagerExecutor()
    return assemble_flow(flow, sizes, voices, noise, executor, MAX_STREAMS, window, precision, ops)


def call(flow, stream, flag, tokens, voice=data.VOICE):
    """One chunk: its mel, or its error."""
    found = flow.run(
        {
            "stream_ids": np.array([stream]), "chunk_flags": np.array([int(flag)], np.int32),
            "voices": np.array([voice.encode()], np.object_), "tokens": np.array(tokens, np.int32),
            "token_lengths": np.array([len(tokens)], np.int32),
        }
    )  # fmt: skip
    length = int(found["mel_lengths"][0])
    return length if length < 0 else found["mel"]


@pytest.mark.parametrize("flag", [WHOLE, ChunkFlag.START])
def test_no_stream_inherits_what_is_not_finite(folder, flag):
    """A last chunk is written to the spare block only, another one to its stream's blocks as well."""
    tokens = (tokens_of("T063") * 3)[:60]
    expected = call(device_flow(folder), 1, WHOLE, tokens)
    flow = device_flow(folder)
    assert call(flow, 1, flag, tokens, BROKEN) == FLOW_FAILED
    np.testing.assert_array_equal(call(flow, 2, WHOLE, tokens), expected)


def test_what_lies_in_the_spare_rows_reaches_no_stream(folder):
    """Frames that are not kept may overflow where all others are finite, and are not scrubbed."""
    tokens = (tokens_of("T063") * 3)[:60]
    expected, flow = call(device_flow(folder), 1, WHOLE, tokens), device_flow(folder)
    cache = flow._device_cache
    cache.blocks[:, :, cache.spare_block] = cache.tails[:, cache.spare_tail] = np.nan
    np.testing.assert_array_equal(call(flow, 1, WHOLE, tokens), expected)


STEPS = 2  # of ten: the interpreter is slow, and all steps are alike


def test_the_kernels_render_what_the_exported_step_does(folder, monkeypatch):
    """In Triton's interpreter: a block that is kept, then frames of two blocks, of which one sees it."""
    read = Sizes.read
    monkeypatch.setattr(Sizes, "read", lambda folder: replace(read(folder), euler_steps=STEPS))
    tokens = (tokens_of("T063") * 2)[:55]
    host, device = torch_stages(folder, window=1)[0], device_flow(folder, 1, ops=kernel_ops(), steps=STEPS)
    for flag, part in ((ChunkFlag.START, tokens[:28]), (ChunkFlag.FINAL, tokens[28:])):
        expected = call(host, 1, flag, part)
        np.testing.assert_allclose(call(device, 1, flag, part), expected, atol=2e-4)


class Launches(TorchDispatchMode):
    """Counts what a GPU would be given: all operations but views and allocations, and our kernels."""

    FREE = ("view", "t", "transpose", "unbind", "select", "slice", "empty", "empty_like", "detach", "as_strided",
            "_unsafe_view", "permute", "expand", "unsqueeze", "alias", "split_with_sizes")  # fmt: skip

    def __init__(self):
        super().__init__()
        self.count, self._kernels = 0, kernel_ops()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ not in self.FREE
        return func(*args, **(kwargs or {}))

    def __getattr__(self, name):
        """An operation as one launch, whatever its twin does here."""
        twin = getattr(twin_ops(), name)

        def launch(*args):
            self.count += 1
            with torch.utils._python_dispatch._disable_current_modes():
                return twin(*args)

        return launch


def launches(folder, depth):
    """Of one Euler step with so many blocks."""
    flow, sizes, mode = deepcopy(data.nets().flow), Sizes.read(folder), Launches()
    flow.estimator.lower(torch.float16)
    step = DeviceStep(EulerStep(flow), mode).eval()
    step.blocks = step.blocks[:depth]
    caches = torch.zeros(depth, 1, 2, 2, sizes.heads, sizes.block_frames, sizes.head_dim, dtype=torch.float16)
    x, ints = torch.zeros(1, sizes.mel_bins, sizes.block_frames), torch.zeros(1, dtype=torch.int64)
    pages = FlowPages(ints[None], ints[None] + NO_BLOCK, ints, ints + 9, 1)
    call = step.begin(x, torch.zeros(1, sizes.mel_bins), ints, pages)
    tails = torch.zeros(1, 2, 2, sizes.dim, sizes.tail_frames)
    with torch.no_grad(), mode:  # inference mode would not tell a copy from a view
        step(x, 0, tails, caches, call)
    return mode.count


def test_launches_of_a_block(folder):
    """Norms 2, matrices 4, packing, attention, GELU: ten steps of 22 blocks are bound by their number."""
    assert launches(folder, 3) - launches(folder, 2) == 9
