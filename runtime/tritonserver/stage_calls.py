"""The stage models, called from the public model by non-decoupled BLS calls of Triton's Python backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from runtime.contracts import SPEECH_ENCODER, TOKEN2WAV, ModelContract
from runtime.errors import stage_fault
from runtime.serving.stages import SpeechChunk, Spoken, pack_chunks, unpack_audio
from runtime.tritonserver.backend import tensors
from runtime.tritonserver.stage_key import stage_parameters


class BlsStages:
    """``Stages`` over non-decoupled BLS calls of Triton's Python backend."""

    def __init__(self, pb_utils: Any) -> None:
        self._pb = pb_utils

    async def encode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        lengths = np.array([len(clip) for clip in clips], np.int32)
        arrays = await self._call(SPEECH_ENCODER, {"audio": np.concatenate(clips), "audio_lengths": lengths})
        return np.split(arrays["audio_embeds"], np.cumsum(arrays["audio_embed_lengths"])[:-1])

    async def speak(self, chunks: Sequence[SpeechChunk]) -> list[Spoken]:
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
