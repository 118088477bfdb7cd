"""Graphs of both stages that compute nothing and check what they are asked for, and calls of the stages."""

import numpy as np

from runtime.contracts import ChunkFlag
from runtime.token2wav.flow.stage import FlowStage
from runtime.token2wav.layout import Sizes
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder.stage import VocoderStage

SIZES = Sizes(
    vocab_size=100,
    mel_bins=4,
    speaker_dim=4,
    lookbehind=2,
    lookahead=3,
    frames_per_token=2,
    block_frames=50,
    euler_steps=2,
    dim=6,
    depth=2,
    heads=2,
    head_dim=3,
    tail_frames=30,
    harmonics=9,
    frame_samples=6,
    sample_rate=300,
    vocoder_left=29,
    voices=("a", "b"),
)
WINDOW = 3
START, CONTINUE, FINAL, RELEASE = ChunkFlag.START, ChunkFlag.CONTINUE, ChunkFlag.FINAL, ChunkFlag.RELEASE


class Graphs:
    """Stands for all graphs; can be told to fail."""

    def __init__(self):
        self.broken = False
        self.widest = self.slots = self.rows = 0
        self.profiles = {}  # graph to the ranges that it was built for

    def _check(self, graph, arrays):
        for name, range_ in self.profiles.get(graph, {}).items():
            assert range_.covers(arrays[name].shape), (graph, name, arrays[name].shape, range_)
        assert not self.profiles or self.profiles[graph].keys() <= arrays.keys()

    def front(self, arrays):
        self._check("front", arrays)
        rows, width = arrays["tokens"].shape
        return {"mu": np.zeros((rows, 4, 2 * (width - 5)), np.float32), "speaker": arrays["embedding"]}

    def step(self, arrays):
        if self.broken:
            raise RuntimeError("broken")
        self._check("step", arrays)
        assert arrays["x"].shape == arrays["mu"].shape
        rows, _, frames = arrays["x"].shape
        self.widest = max(self.widest, frames)
        self.slots = max(self.slots, arrays["tables"].shape[1])
        new = np.zeros((2, rows, 2, 2, 2, frames, 3), np.float32)
        return {"next": arrays["x"], "keys_values": new, "next_tails": np.zeros((rows, 2, 2, 6, 30), np.float32)}

    def vocoder(self, arrays):
        if self.broken:
            raise RuntimeError("broken")
        self._check("vocoder", arrays)
        rows, _, width = arrays["mel"].shape
        self.rows = max(self.rows, rows)
        return {
            "audio": np.zeros((rows, (width - 4) * 6), np.float32),
            "f0": np.zeros((rows, arrays["noise"].shape[1] // 6), np.float32),
        }


def make_flow(graphs, folder, streams=2, window=WINDOW):
    np.save(folder / "mel.npy", np.arange(400, dtype=np.float32).reshape(4, 100))
    vectors = {name: np.zeros(4, np.float32) for name in SIZES.voices}
    return FlowStage(SIZES, graphs.front, graphs.step, vectors, Noise(folder / "mel.npy", axis=1), streams, window)


def make_vocoder(graphs, folder, streams=2):
    np.save(folder / "source.npy", np.zeros((600, 9), np.float32))
    return VocoderStage(SIZES, graphs.vocoder, Noise(folder / "source.npy", axis=0), streams)


def tokens(*rows, **changes):
    """Inputs of the flow: (stream, flag, count) each."""
    ids, flags, counts = zip(*rows, strict=True)
    return {
        "stream_ids": np.array(ids),
        "chunk_flags": np.array([int(flag) for flag in flags], np.int32),
        "voices": np.array([b"a"] * len(ids), np.object_),
        "tokens": np.arange(sum(counts), dtype=np.int32) % 100,
        "token_lengths": np.array(counts, np.int32),
    } | changes


def mel(*rows, **changes):
    """Inputs of the vocoder: (stream, flag, frames) each; frames may be STATE_LOST."""
    ids, flags, counts = zip(*rows, strict=True)
    return {
        "stream_ids": np.array(ids),
        "chunk_flags": np.array([int(flag) for flag in flags], np.int32),
        "mel": np.zeros((4, sum(max(0, count) for count in counts)), np.float32),
        "mel_lengths": np.array(counts, np.int32),
    } | changes


def lengths(out):
    return next(array for name, array in out.items() if name.endswith("lengths")).tolist()
