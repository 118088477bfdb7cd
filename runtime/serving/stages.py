"""The stage models as the public model sees them: sound to embeddings, tokens to sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from runtime.contracts import (
    FLOW,
    FLOW_FAILED,
    SPEECH_ENCODER,
    STATE_LOST,
    TOKEN2WAV,
    VOCODER,
    VOCODER_FAILED,
    ChunkFlag,
    ModelContract,
)
from runtime.errors import EngineFault, stage_fault
from runtime.tritonserver.stage_key import stage_parameters
from runtime.tritonserver.backend import tensors

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


class BlsStages:
    """``Stages`` over non-decoupled BLS calls of Triton's Python backend."""

    def __init__(self, pb_utils: Any) -> None:
        self._pb = pb_utils

    async def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """See ``Stages``."""
        lengths = np.array([len(clip) for clip in clips], np.int32)
        arrays = await self._call(SPEECH_ENCODER, {"audio": np.concatenate(clips), "audio_lengths": lengths})
        return np.split(arrays["audio_embeds"], np.cumsum(arrays["audio_embed_lengths"])[:-1])

    async def speak(self, chunks: Sequence[SpeechChunk]) -> list[Spoken]:
        """See ``Stages``."""
        arrays = await self._call(TOKEN2WAV, pack_chunks(chunks))
        return unpack_audio(arrays["audio"], arrays["audio_lengths"])

    async def _call(self, contract: ModelContract, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [spec.name for spec in contract.outputs]
        request = self._pb.InferenceRequest(
            model_name=contract.name,
            requested_output_names=names,
            inputs=tensors(self._pb, contract.inputs, arrays),
            parameters=stage_parameters(),
        )
        response = await request.async_exec()
        if response.has_error():
            raise stage_fault(response.error().message(), contract.name)
        return {name: self._pb.get_output_tensor_by_name(response, name).as_numpy() for name in names}


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
