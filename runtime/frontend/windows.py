"""Clips to encoder windows and back: plain numpy around the encoder graph.

Several clips, of any lengths, become one batch of windows; the grouped rows are cut back per clip.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

#: mel [windows, bins, frames], frames [windows], keep [windows] -> [windows, groups, hidden]
EncoderGraph = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Mel frames and groups of a full window, and 25 Hz rows per group."""

    frames: int
    groups: int
    group_size: int

    @property
    def rows(self) -> int:
        """25 Hz rows of a full window."""
        return self.groups * self.group_size


def encode_clips(
    mels: Sequence[np.ndarray], speech_frames: Sequence[int], shape: WindowShape, graph: EncoderGraph, max_windows: int
) -> list[np.ndarray]:
    """Embeddings of each clip's audio placeholders.

    Args:
        mels: per clip [bins, valid frames] float32.
        speech_frames: per clip, 25 Hz frames; the clip has ``ceil(/ group_size)`` placeholders.
        max_windows: most windows of one graph call.

    Returns:
        Per clip [placeholders, hidden] float32.
    """
    counts = [-(-frames // shape.group_size) for frames in speech_frames]
    windows = [-(-mel.shape[1] // shape.frames) if count else 0 for mel, count in zip(mels, counts, strict=True)]
    if not sum(windows):
        return [np.zeros((0, 0), np.float32) for _ in mels]
    batch = np.zeros((sum(windows), mels[0].shape[0], shape.frames), np.float32)
    frames = np.zeros(len(batch), np.int64)
    keep = np.zeros(len(batch), np.int64)
    at = 0
    for mel, count, number in zip(mels, counts, windows, strict=True):
        # Rows end where the encoder's end (every second pair), and never beyond the padded groups.
        rows = min(max(mel.shape[1] + 1 >> 2, 1), count * shape.group_size)
        for i in range(number):
            part = mel[:, i * shape.frames : (i + 1) * shape.frames]
            batch[at, :, : part.shape[1]] = part
            frames[at] = part.shape[1]
            keep[at] = np.clip(rows - i * shape.rows, 0, shape.rows)
            at += 1
    parts = [
        graph(batch[i : i + max_windows], frames[i : i + max_windows], keep[i : i + max_windows])
        for i in range(0, len(batch), max_windows)
    ]
    groups = np.concatenate(parts)
    ends = np.cumsum(windows)
    return [
        groups[end - number : end].reshape(number * shape.groups, groups.shape[-1])[:count]
        for end, number, count in zip(ends, windows, counts, strict=True)
    ]
