"""Sizes that are recorded before a stage is ready: they cover whatever the profile allows, and there are few."""

import numpy as np
import pytest
import torch
from token2wav_graphs import SIZES

from runtime.families.fun_audio_chat.encoder_sizes import encoder_calls, encoder_rule
from runtime.graphs.executor import EagerExecutor
from runtime.graphs.recorded import DeviceGraph
from runtime.graphs.recorded_sizes import powers_down
from runtime.graphs.shapes import Span, profile_of
from runtime.token2wav.shapes import vocoder_profile
from runtime.token2wav.vocoder.recorded_sizes import vocoder_calls, vocoder_rule, window_frames, windows_down


def test_windows_grow_by_a_third_or_a_half():
    assert windows_down(234) == [256, 192, 128, 96, 64, 48, 32, 16]
    assert [window_frames(n) for n in (1, 16, 17, 33, 49, 65, 97, 229)] == [16, 16, 32, 48, 64, 96, 128, 256]
    assert all(n <= window_frames(n) <= max(16, 2 * n) for n in range(1, 600))


@pytest.mark.parametrize(("most", "sizes"), [(1, [1]), (5, [8, 4, 2, 1]), (16, [16, 8, 4, 2, 1])])
def test_rows_are_powers_of_two(most, sizes):
    assert powers_down(most) == sizes


def silent(**inputs):
    return next(iter(inputs.values()))[:, 0], next(iter(inputs.values()))[:, 0]


def windows(rng, rows, frames):
    """A call as the stage makes it: pitch window wider than the source's, mel a little narrower."""
    lengths = np.full(rows, frames)
    return {
        "mel": np.zeros((rows, SIZES.mel_bins, frames), np.float32),
        "mel_pitch": np.zeros((rows, SIZES.mel_bins, frames + int(rng.integers(0, 11))), np.float32),
        "noise": np.zeros((rows, frames * SIZES.frame_samples, SIZES.harmonics), np.float32),
        "turns": np.zeros((rows, SIZES.harmonics), np.float32),
        "source_frames": lengths, "frames": lengths, "lead": lengths,
    }  # fmt: skip


def test_no_call_of_the_vocoder_needs_another_recording():
    profile = vocoder_profile(SIZES, 6)
    graph = DeviceGraph(EagerExecutor(), silent, ("audio", "f0"), vocoder_rule(SIZES.frame_samples))
    graph.prepare(vocoder_calls(profile, SIZES.frame_samples))
    assert len(graph) == 4 * 8, "rows times windows"
    rng = np.random.default_rng(0)
    longest = profile["noise"].high[1] // SIZES.frame_samples
    for frames in range(1, longest + 1):
        graph.run(windows(rng, int(rng.integers(1, 7)), frames))
    assert len(graph) == 4 * 8
    graph.run(windows(rng, 1, 2 * longest))
    assert len(graph) == 4 * 8 + 1, "what is beyond the profile still runs"


def test_no_call_of_the_encoder_needs_another_recording():
    spans = {"mel": (Span(1, 1, 16), 4, 6), "frames": (Span(1, 1, 16),), "keep": (Span(1, 1, 16),)}
    graph = DeviceGraph(EagerExecutor(), lambda mel, frames, keep: mel * keep[:, None, None], ("groups",), encoder_rule)
    graph.prepare(encoder_calls(profile_of(spans)))
    assert len(graph) == 5
    for rows in range(1, 17):
        keep = np.arange(rows)
        found = graph.run({"mel": np.ones((rows, 4, 6), np.float32), "frames": keep, "keep": keep})["groups"]
        assert found.shape == (rows, 4, 6) and torch.from_numpy(found[:, 0, 0]).tolist() == list(range(rows))
    assert len(graph) == 5
