"""Checking and resampling the sound of a request. Plain numpy and soxr."""

from __future__ import annotations

import numpy as np

from client.protocol.requests import HIGHEST_RATE, LOUDEST, LOWEST_RATE
from runtime.checkpoint.features import FeatureConfig
from runtime.errors import InvalidRequest


def split_clips(audio: np.ndarray | None, lengths: np.ndarray | None) -> list[np.ndarray]:
    """Clips of the ``audio`` and ``audio_lengths`` inputs; without lengths all of it is one clip.

    Raises:
        InvalidRequest: another shape than a vector, lengths that do not add up, non-finite samples.
    """
    if audio is None:
        if lengths is not None and lengths.size:
            raise InvalidRequest("audio_lengths", "is given without audio", "send the clips in audio")
        return []
    if audio.ndim != 1:
        raise InvalidRequest("audio", f"has shape {list(audio.shape)}", "send mono samples as a vector")
    if not np.isfinite(audio).all():
        raise InvalidRequest("audio", "holds NaN or infinite samples", "send finite samples in [-1, 1]")
    if np.abs(audio).max(initial=0.0) > LOUDEST:
        remedy = "scale them to [-1, 1] (those of 16 bits: divide by 32768)"
        raise InvalidRequest("audio", f"holds samples beyond {LOUDEST:g}", remedy)
    if lengths is None:
        lengths = np.array([len(audio)])
    if lengths.ndim != 1 or (lengths < 1).any():
        raise InvalidRequest("audio_lengths", "holds an empty clip or is no vector", "send clips of one sample or more")
    if int(lengths.sum(dtype=np.int64)) != len(audio):
        raise InvalidRequest(
            "audio_lengths",
            f"adds up to {int(lengths.sum(dtype=np.int64))} for {len(audio)} samples",
            "make them equal",
        )
    return np.split(audio, np.cumsum(lengths)[:-1]) if len(lengths) else []


def check_rate(sample_rate: int) -> None:
    """Raises InvalidRequest for an implausible rate."""
    if not LOWEST_RATE <= sample_rate <= HIGHEST_RATE:
        raise InvalidRequest(
            "sample_rate", f"is {sample_rate}", f"send between {LOWEST_RATE} and {HIGHEST_RATE} samples per second"
        )


def to_model_rate(
    clips: list[np.ndarray], sample_rate: int, features: FeatureConfig, longest_s: float | None = None
) -> list[np.ndarray]:
    """Clips at the extractor's rate, checked against its longest audio, or ``longest_s`` if that is less.

    Raises:
        InvalidRequest: an implausible rate, or a clip that is too long.
    """
    check_rate(sample_rate)
    longest = float(features.seconds) if longest_s is None else min(longest_s, float(features.seconds))
    for i, clip in enumerate(clips):
        if len(clip) > longest * sample_rate:
            raise InvalidRequest(
                "audio",
                f"clip {i} lasts {len(clip) / sample_rate:.1f} s",
                f"send at most {longest:g} s per clip",
            )
    if sample_rate == features.sample_rate:
        return clips
    import soxr  # late: a machine that only reads options, such as a bare one with a GPU, needs no resampler

    # soxr's HQ recipe is what the authors' loader (librosa) uses.
    return [
        soxr.resample(clip, sample_rate, features.sample_rate, quality="HQ")[: features.n_samples] for clip in clips
    ]
