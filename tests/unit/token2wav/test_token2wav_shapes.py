"""Whatever is said and however it is cut, batched and joined, no graph sees a shape outside its profile."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from token2wav_graphs import CONTINUE, FINAL, RELEASE, SIZES, START, Graphs, make_flow, make_vocoder, tokens

from runtime.graphs.shapes import Range
from runtime.token2wav.shapes import front_profile, step_profile, vocoder_profile

ROWS, STREAMS = 4, 6
CHUNK = st.one_of(st.integers(0, 60), st.integers(0, 700))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    streams=st.lists(st.lists(CHUNK, min_size=1, max_size=8), min_size=1, max_size=STREAMS),
    window=st.integers(0, 9),
    seed=st.integers(0, 99),
)
def test_every_shape_is_inside_its_profile(tmp_path, streams, window, seed):
    graphs, chance = Graphs(), np.random.default_rng(seed)
    graphs.profiles = {
        "front": front_profile(SIZES, ROWS),
        "step": step_profile(SIZES, ROWS, STREAMS, window),
        "vocoder": vocoder_profile(SIZES, ROWS),
    }
    flow, vocoder = make_flow(graphs, tmp_path, STREAMS, window), make_vocoder(graphs, tmp_path, STREAMS)
    place = [0] * len(streams)
    while open_streams := [i for i, chunks in enumerate(streams) if place[i] < len(chunks)]:
        ids = [i for i in open_streams if chance.random() < 0.7][:ROWS]
        if not ids:
            continue
        rows = []
        for i in ids:
            flag = START * (place[i] == 0) | FINAL * (place[i] + 1 == len(streams[i]))
            rows.append(
                (i, RELEASE, 0) if flag == CONTINUE and chance.random() < 0.05 else (i, flag, streams[i][place[i]])
            )
            place[i] += 1
        keys = tokens(*rows)
        vocoder.run({name: keys[name] for name in ("stream_ids", "chunk_flags")} | flow.run(keys))
    assert not flow.states and not vocoder.states


def test_a_range_knows_what_it_covers():
    one = Range((1, 4, 2), (2, 4, 5), (3, 4, 9))
    assert one.covers((1, 4, 9)) and not one.covers((1, 4, 10)) and not one.covers((0, 4, 2)) and not one.covers((1, 4))


def test_profiles_are_in_order():
    for profile in (
        front_profile(SIZES, 8),
        step_profile(SIZES, 8, 24, 0),
        step_profile(SIZES, 8, 24, 8),
        vocoder_profile(SIZES, 8),
    ):
        assert all(range_.covers(range_.usual) for range_ in profile.values())
