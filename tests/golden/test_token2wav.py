"""Token2wav streamed through its stages, over torch and over the exported graphs, against the authors' calls."""

from itertools import pairwise

import numpy as np
import onnx
import pytest
import token2wav_data as data
from token2wav_data import close
from token2wav_stages import call, onnx_stages, render, tokens_of, torch_stages

from runtime.contracts import STATE_LOST, ChunkFlag
from runtime.token2wav.hops import ALIGNED_HOPS, DEMO_SERVER_HOPS, EARLIEST_HOPS, STEADY_HOPS
from runtime.token2wav.layout import FRONT_GRAPH, STEP_GRAPHS, VOCODER_GRAPH

pytestmark = pytest.mark.golden
TOKEN, FRAME = 960, 480
# The authors' phase grows and loses digits, ours does not: the sound differs by as much.
WAV_T063, WAV_T200 = 4e-4, 2e-3


@pytest.fixture(params=[torch_stages, onnx_stages], ids=["torch", "onnx"])
def make_stages(request, exported):
    return lambda **options: request.param(exported, **options)


@pytest.fixture
def stages(exported):
    return onnx_stages(exported)


@pytest.mark.parametrize(
    ("case", "name", "hops", "tolerance"),
    [
        ("T008", "T008_C25", (25,), WAV_T063),
        ("T063", "C25", (25,), WAV_T063),
        ("T063", "T063_D", ALIGNED_HOPS, WAV_T063),
        ("T063", "T063_E", STEADY_HOPS, WAV_T063),
        ("T200", "T200_D", ALIGNED_HOPS, WAV_T200),
        ("T200", "T200_E", STEADY_HOPS, WAV_T200),
    ],
)
def test_streaming_equals_the_authors_calls(make_stages, case, name, hops, tolerance):
    golden = data.vectors()
    mels, sounds = render(make_stages(), tokens_of(case), hops)
    if f"{name}_calls" in golden:
        assert [len(sound) for sound in sounds] == golden[f"{name}_calls"][:, 4].tolist()
    mel, sound = np.concatenate(mels, axis=1), np.concatenate(sounds)
    compared = [key for key in golden if key.startswith((f"{name}_mel", f"{name}_wav"))]
    assert compared
    for key in compared:
        every = int(key.rpartition("_")[2]) if "every" in key else 1
        found, bound = (mel, 1e-4) if "_mel" in key else (sound, tolerance)
        close(found[..., ::every], golden[key], bound)


def test_demo_server_policy_where_it_makes_calls_and_then_the_tail(make_stages):
    """Full attention on a growing prefix. The authors' server ends without the last tokens."""
    golden = data.vectors()
    mels, sounds = render(make_stages(full_attention=True), tokens_of("T063"), DEMO_SERVER_HOPS)
    theirs = golden["B15_calls"]
    assert [len(sound) for sound in sounds[:-1]] == theirs[:, 4].tolist()
    mel, sound = np.concatenate(mels, axis=1), np.concatenate(sounds)
    assert mel.shape[1] > golden["B15_mel"].shape[1] and len(sound) == 63 * TOKEN
    close(mel[:, : golden["B15_mel"].shape[1]], golden["B15_mel"], 1e-4)
    close(sound[: theirs[:, 4].sum() : 8], golden["B15_wav_every_8"], WAV_T063)


def test_mel_of_whole_blocks_equals_the_one_shot_rendering(stages):
    """From token 15 on: the first chunk alone was rendered inside an unfinished block."""
    mels, _ = render(stages, tokens_of("T063"), ALIGNED_HOPS)
    close(np.concatenate(mels, axis=1)[:, 30:], data.vectors()["T063_mel_chunk_final"][:, 30:], 1e-4)


@pytest.fixture
def vocode(make_stages):
    """Sound of a mel that comes in pieces of the given sizes, the last of which repeats."""

    def sound(mel, sizes):
        vocoder, out, total = make_stages()[1], [], mel.shape[1]
        steps = np.cumsum([0, *sizes, *[sizes[-1]] * total])
        for begin, end in pairwise([*steps[steps < total].tolist(), total]):
            flag = ChunkFlag.START * (begin == 0) | ChunkFlag.FINAL * (end == total)
            part = {"mel": mel[:, begin:end], "mel_lengths": np.array([end - begin], np.int32)}
            keys = {"stream_ids": np.array([1]), "chunk_flags": np.array([int(flag)], np.int32)}
            out.append(vocoder.run(keys | part)["audio"])
        return np.concatenate(out)

    return sound


def test_windows_of_the_vocoder_are_exact(vocode):
    """The same mel in other pieces, and at once: context, carried phase and noise all fit."""
    mel = np.tile(data.vectors()["T063_D_mel"], (1, 4))
    whole, pieces = vocode(mel, (mel.shape[1],)), vocode(mel, (50,))
    assert len(whole) == mel.shape[1] * FRAME
    close(pieces, whole, 4e-4)  # long windows sum their phase in float32
    for count in (199, 200, 201, 207, 208, 209, 210, 400):  # around the longest window
        assert len(vocode(mel[:, :count], (count,))) == count * FRAME
    for sizes in ((30, 20, 50), (1, 2, 5, 9), (45,), (7,)):
        close(vocode(mel, sizes), pieces, 1e-4)


@pytest.mark.parametrize("hops", [ALIGNED_HOPS, STEADY_HOPS, EARLIEST_HOPS, DEMO_SERVER_HOPS])
def test_no_tail_is_lost_whatever_the_length(exported, hops):
    """The demo server's policy too, which loses up to 320 ms in the authors' server."""
    stages, tokens = onnx_stages(exported, full_attention=hops == DEMO_SERVER_HOPS), tokens_of("T200")
    for count in [*range(1, 71), 199]:
        _, sounds = render(stages, tokens[:count], hops)
        assert sum(map(len, sounds)) == TOKEN * count


def test_lost_state_is_said_and_leaves_the_others_alone(stages):
    flags = [ChunkFlag.CONTINUE, ChunkFlag.START | ChunkFlag.FINAL]
    out = call(stages, [3, 4], flags, [[1, 2], [3, 4, 5, 6]])
    assert out["audio_lengths"].tolist() == [STATE_LOST, 4 * TOKEN]


@pytest.mark.parametrize("name", [FRONT_GRAPH, *STEP_GRAPHS.values(), VOCODER_GRAPH])
def test_graphs_hold_standard_operators_and_nothing_double(exported, name):
    """Whether TensorRT takes them its own parser says: `contracts/test_real_builder.py`."""
    model = onnx.load(exported / name)
    assert model.graph.node and {node.domain for node in model.graph.node} <= {"", "ai.onnx"} and not model.functions
    types = {tensor.data_type for tensor in model.graph.initializer}
    assert onnx.TensorProto.DOUBLE not in types


def test_step_graph_holds_tables_instead_of_time_projections(exported):
    flow = data.nets().flow.estimator
    projections = sum(block.modulation.weight.numel() for block in flow.blocks())
    weights = sum(p.numel() for p in flow.parameters())
    stored = sum(np.prod(t.dims) for t in onnx.load(exported / STEP_GRAPHS["float32"]).graph.initializer)
    assert stored < weights - projections
