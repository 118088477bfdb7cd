"""Log-mel features of the Whisper extractor, and the frame counts that follow from a clip's length.

Plain numpy. Source: transformers' WhisperFeatureExtractor; reference, section 2.1.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from runtime.checkpoint.features import FeatureConfig

MEL_TOP_HZ = 8000.0
FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # in log10 units below the loudest cell
LINEAR_STEP_HZ = 200.0 / 3  # the Slaney scale: linear below 1 kHz, logarithmic above
LOG_START_HZ = 1000.0
LOG_STEP = np.log(6.4) / 27.0
SPEECH_TOKEN_HZ = 25


def speech_frames(samples: int, sample_rate: int) -> int:
    """25 Hz frames of a clip, in double precision and in the authors' order of operations.

    At 463 lengths below 300 s this gives one less than exact arithmetic would; the prompt depends on it.
    """
    return int(samples / sample_rate * SPEECH_TOKEN_HZ)


def placeholders(samples: int, sample_rate: int, group_size: int) -> int:
    """Audio positions (5 Hz) that a clip takes in the prompt."""
    return -(-speech_frames(samples, sample_rate) // group_size)


def position_hz(group_size: int) -> float:
    """Audio positions of a second of sound."""
    return SPEECH_TOKEN_HZ / group_size


def _hz_to_mel(hz: np.ndarray) -> np.ndarray:
    linear = hz / LINEAR_STEP_HZ
    start = LOG_START_HZ / LINEAR_STEP_HZ
    return np.where(hz >= LOG_START_HZ, start + np.log(np.maximum(hz, LOG_START_HZ) / LOG_START_HZ) / LOG_STEP, linear)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    start = LOG_START_HZ / LINEAR_STEP_HZ
    return np.where(mel >= start, LOG_START_HZ * np.exp(LOG_STEP * (mel - start)), LINEAR_STEP_HZ * mel)


@lru_cache(maxsize=2)
def mel_filters(config: FeatureConfig) -> np.ndarray:
    """Slaney triangles of unit area [mel bins, n_fft // 2 + 1], float64."""
    frequencies = np.linspace(0, config.sample_rate / 2, config.n_fft // 2 + 1)
    ends = _hz_to_mel(np.array([0.0, MEL_TOP_HZ]))
    edges = _mel_to_hz(np.linspace(ends[0], ends[1], config.num_mel_bins + 2))
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    area = 2.0 / (edges[2:] - edges[:-2])
    return np.maximum(0, np.minimum(rising, falling)) * area[:, None]


def log_mel(clip: np.ndarray, config: FeatureConfig) -> np.ndarray:
    """Features of one clip's valid frames.

    The authors pad every clip with silence to ``n_samples`` and take the dynamic range over the whole
    item. Frames that no longer touch the clip hold the floor and cannot be its maximum, so the
    padding is cut to what a window reaches.

    Args:
        clip: [samples] float32 in [-1, 1], at most ``n_samples``.

    Returns:
        [mel bins, ceil(samples / hop)] float32, in units of (log10 power + 4) / 4.
    """
    frames = -(-len(clip) // config.hop_length)
    half = config.n_fft // 2
    touched = min(frames + -(-half // config.hop_length), config.n_samples // config.hop_length)
    # Reflection at the end only shows when the clip fills the whole buffer; otherwise silence follows.
    room = min(config.n_samples, touched * config.hop_length + config.n_fft)
    padded = np.zeros(room, np.float64)
    padded[: len(clip)] = clip
    padded = np.pad(padded, half, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, config.n_fft)[:: config.hop_length][:touched]
    hann = np.hanning(config.n_fft + 1)[:-1]
    power = np.abs(np.fft.rfft(windows * hann)) ** 2  # [frames, bins]
    logs = np.log10(np.maximum(mel_filters(config) @ power.T, FLOOR))
    floored = np.maximum(logs[:, :frames], logs.max() - DYNAMIC_RANGE)
    return ((floored + 4.0) / 4.0).astype(np.float32)


def log_mel_batch(arrays: dict[str, np.ndarray], features: FeatureConfig) -> dict[str, np.ndarray]:
    """``audio`` and ``audio_lengths`` to ``mel``, ``mel_lengths`` and ``speech_frames``."""
    clips = np.split(arrays["audio"], np.cumsum(arrays["audio_lengths"])[:-1])
    mels = [log_mel(clip, features) for clip in clips]
    return {
        "mel": np.concatenate(mels, axis=1),
        "mel_lengths": np.array([mel.shape[1] for mel in mels], np.int32),
        "speech_frames": np.array([speech_frames(len(clip), features.sample_rate) for clip in clips], np.int32),
    }
