"""State, refusals and failures of both stages, over graphs that compute nothing."""

import subprocess
import sys

import numpy as np
import pytest
from token2wav_graphs import (
    CONTINUE,
    FINAL,
    RELEASE,
    START,
    WINDOW,
    Graphs,
    lengths,
    make_flow,
    make_vocoder,
    mel,
    tokens,
)

from runtime.contracts import FLOW_FAILED, STATE_LOST, VOCODER_FAILED
from runtime.errors import InvalidRequest, NotFound, Overloaded


@pytest.fixture
def graphs():
    return Graphs()


@pytest.fixture
def flow(graphs, tmp_path):
    return make_flow(graphs, tmp_path)


@pytest.fixture
def vocoder(graphs, tmp_path):
    return make_vocoder(graphs, tmp_path)


def test_frames_of_all_tokens_but_the_lookahead(flow):
    assert lengths(flow.run(tokens((1, START, 18)))) == [30]
    assert lengths(flow.run(tokens((1, CONTINUE, 1), (2, START, 2)))) == [2, 0]
    out = flow.run(tokens((2, FINAL, 0), (1, FINAL, 0)))
    assert lengths(out) == [4, 6]
    np.testing.assert_array_equal(out["mel"][0], [0, 1, 2, 3, 32, 33, 34, 35, 36, 37])
    assert len(flow.states) == 0


def test_a_long_chunk_is_rendered_in_pieces_of_whole_blocks(flow, graphs):
    assert lengths(flow.run(tokens((1, START, 1003)))) == [2000]
    assert graphs.widest == 4 * 50 and graphs.slots == WINDOW


def test_flow_state_is_bounded_counted_and_freed(flow, graphs):
    stream, block = flow.cache.stream_bytes, flow.cache.block_bytes
    assert (stream, block) == (2 * 2 * 2 * 6 * 30 * 4, 2 * 2 * 2 * 2 * 2 * 50 * 3 * 4)  # per step, both guidance rows
    flow.run(tokens((1, START, 18)))
    assert flow.held_bytes == stream, "no complete block yet"
    for _ in range(20):
        flow.run(tokens((1, CONTINUE, 25)))
        assert len(flow.states.get(1).tokens) <= 2 + 25 + 25 + 3
    assert flow.held_bytes == stream + WINDOW * block
    flow.run(tokens((2, START, 503)))
    assert flow.held_bytes == flow.cache.limit_bytes == 2 * (stream + WINDOW * block)
    flow.run(tokens((1, RELEASE, 0), (3, START, 28)))  # the released stream makes room in the same call
    assert flow.held_bytes == 2 * stream + (WINDOW + 1) * block
    flow.run(tokens((3, START, 3)))  # begins again
    assert flow.held_bytes == 2 * stream + WINDOW * block
    graphs.broken = True
    assert lengths(flow.run(tokens((2, CONTINUE, 25), (3, CONTINUE, 25)))) == [FLOW_FAILED] * 2
    assert flow.held_bytes == 0


def test_windows_of_several_streams_are_one_call(vocoder, graphs):
    vocoder.run(mel((1, START, 30), (2, START, 17)))
    assert graphs.rows == 2 and vocoder.held_bytes == 4 * 4 * (30 + 17) + 2 * 9 * 8


def test_samples_of_all_frames_but_the_last_eight(vocoder):
    assert lengths(vocoder.run(mel((1, START, 30), (2, START, 8)))) == [22 * 6, 0]
    assert lengths(vocoder.run(mel((1, CONTINUE, 50), (2, FINAL, 0)))) == [50 * 6, 8 * 6]
    assert lengths(vocoder.run(mel((1, FINAL, 0)))) == [8 * 6]
    assert len(vocoder.states) == 0


def test_the_vocoder_keeps_a_bounded_window(vocoder):
    vocoder.run(mel((1, START, 30)))
    for _ in range(20):
        vocoder.run(mel((1, CONTINUE, 50)))
        assert vocoder.states.get(1).mel.shape[1] == 29 + 8 + 8
    assert (vocoder.states.get(1).turns < 1).all()


@pytest.mark.parametrize(("name", "pack"), [("flow", tokens), ("vocoder", mel)])
class TestBoth:
    @pytest.fixture
    def stage(self, name, request):
        return request.getfixturevalue(name)

    def test_unknown_stream(self, stage, pack):
        assert lengths(stage.run(pack((1, CONTINUE, 9), (2, START | FINAL, 10), (3, RELEASE, 0))))[::2] == [-1, 0]
        assert lengths(stage.run(pack((2, CONTINUE, 9)))) == [STATE_LOST], "ended streams are forgotten"

    def test_a_full_table_refuses_the_call_and_changes_nothing(self, stage, pack, name):
        stage.run(pack((1, START, 20)))
        with pytest.raises(Overloaded, match=f"UNAVAILABLE: {name}: holds 1 of 2 streams; retry"):
            stage.run(pack((1, CONTINUE, 5), (2, START, 5), (3, START, 5)))
        assert len(stage.states) == 1
        again = lengths(stage.run(pack((1, CONTINUE, 5), (2, START | FINAL, 5))))
        assert again[0] == {"flow": 10, "vocoder": 5 * 6}[name], "the refused tokens were not taken"

    def test_a_failing_call_frees_its_streams_only(self, stage, pack, graphs, name):
        stage.run(pack((1, START, 20), (2, START, 20)))
        graphs.broken = True
        assert lengths(stage.run(pack((1, CONTINUE, 20)))) == [{"flow": FLOW_FAILED, "vocoder": VOCODER_FAILED}[name]]
        graphs.broken = False
        out = lengths(stage.run(pack((1, CONTINUE, 5), (2, CONTINUE, 5))))
        assert out[0] == STATE_LOST and out[1] > 0

    def test_release(self, stage, pack):
        stage.run(pack((1, START, 20), (2, START, 20)))
        assert lengths(stage.run(pack((1, RELEASE, 0)))) == [0]
        assert len(stage.states) == 1
        stage.run(pack((3, START, 20)))

    def test_malformed_calls(self, stage, pack):
        key = "tokens" if pack is tokens else "mel"
        length = "token_lengths" if pack is tokens else "mel_lengths"
        with pytest.raises(InvalidRequest, match="stream_ids: names a stream twice"):
            stage.run(pack((1, START, 5), (1, CONTINUE, 5)))
        with pytest.raises(InvalidRequest, match=rf"{length}: adds up to 4, not to 5; fit it to {key}"):
            stage.run(pack((1, START, 5), **{length: np.array([4], np.int32)}))
        with pytest.raises(InvalidRequest, match=rf"{length}: holds -9"):
            stage.run(pack((1, START, 5), **{length: np.array([-9], np.int32)}))
        with pytest.raises(InvalidRequest, match=r"has 1 entries beside 1 stream_ids and 2 chunk_flags"):
            stage.run(pack((1, START, 5), chunk_flags=np.array([1, 1], np.int32)))
        assert len(stage.states) == 0


def test_unknown_voices_and_control_codes(flow):
    with pytest.raises(NotFound, match=r"NOT_FOUND: voices: 'zz' is not known; use one of a, b"):
        flow.run(tokens((1, START, 5), voices=np.array([b"zz"], np.object_)))
    with pytest.raises(NotFound, match="is not known"):
        flow.run(tokens((1, START, 5), voices=np.array([b"\xff"], np.object_)))
    with pytest.raises(InvalidRequest, match="voices: has 2 entries for 1 chunks"):
        flow.run(tokens((1, START, 5), voices=np.array([b"a", b"a"], np.object_)))
    for code in (-1, 100):
        with pytest.raises(InvalidRequest, match="tokens: holds control codes; send codes below 100"):
            flow.run(tokens((1, START, 1), tokens=np.array([code], np.int32)))
    assert len(flow.states) == 0
    flow.run(tokens((1, START, 5)))
    flow.run(tokens((1, CONTINUE, 5), voices=np.array([b"read on START only"], np.object_)))


def test_lost_in_the_flow_is_lost_in_the_vocoder(vocoder):
    vocoder.run(mel((1, START, 30)))
    assert lengths(vocoder.run(mel((1, CONTINUE, STATE_LOST), (2, START, 30)))) == [STATE_LOST, 22 * 6]
    assert len(vocoder.states) == 1
    with pytest.raises(InvalidRequest, match=r"mel: has shape \[3, 5\]; send 4 rows"):
        vocoder.run(mel((1, START, 5), mel=np.zeros((3, 5), np.float32)))


def test_the_stages_need_no_torch_at_run_time():
    code = "import sys, runtime.token2wav.build; sys.exit('torch' in sys.modules or 'yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
