"""The stage models as the public model sees them: sound to embeddings, tokens to sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from runtime.contracts import (
    FLOW,
    FLOW_FAILED,
    STATE_LOST,
    TOKEN2WAV,
    VOCODER,
    VOCODER_FAILED,
    ChunkFlag,
)
from runtime.errors import EngineFault

_FAILED = "failed at this answer, or made sound that is not finite"
_LOST = {
    STATE_LOST: (TOKEN2WAV.name, "the state of this stream was lost"),
    FLOW_FAILED: (FLOW.name, _FAILED),
    VOCODER_FAILED: (VOCODER.name, _FAILED),
}


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """New tokens of one token2wav stream."""

    stream_id: int
    flag: ChunkFlag
    voice: str
    tokens: Sequence[int]


Spoken = np.ndarray | EngineFault


class Speaker(Protocol):
    """Tokens to sound, each call one batch."""

    async def speak(self, chunks: Sequence[SpeechChunk]) -> list[Spoken]:
        """Chunks to their new 24 kHz samples; an error where the stream is over."""


class Stages(Speaker, Protocol):
    """All feed-forward stages."""

    async def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Clips at the model's rate to [placeholders, hidden] each."""


def pack_chunks(chunks: Sequence[SpeechChunk]) -> dict[str, np.ndarray]:
    """Chunks as the inputs of the ``token2wav`` contract."""
    return {
        "stream_ids": np.array([c.stream_id for c in chunks], np.int64),
        "chunk_flags": np.array([int(c.flag) for c in chunks], np.int32),
        "voices": np.array([c.voice.encode() for c in chunks], np.object_),
        "tokens": np.array([t for c in chunks for t in c.tokens], np.int32),
        "token_lengths": np.array([len(c.tokens) for c in chunks], np.int32),
    }


def unpack_audio(audio: np.ndarray, lengths: np.ndarray) -> list[Spoken]:
    """Samples of each chunk; an error where the length says why there are none."""
    ends = np.cumsum(np.maximum(lengths, 0))
    return [
        _lost(int(length)) if length < 0 else audio[end - length : end]
        for length, end in zip(lengths, ends, strict=True)
    ]


def _lost(code: int) -> EngineFault:
    stage, problem = _LOST[code]
    return EngineFault(stage, problem, "send the request again")
