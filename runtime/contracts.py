"""The tensors of every model of the repository, declared once; the public one in ``client.protocol.tensors``.

Serves ``auto_complete_config`` and the tests. Knows names, types and dims; knows nothing of Triton's Python API, of
torch or of any checkpoint. All models use ``max_batch_size: 0``: batches are packed along the first axis with a vector
of lengths beside them, because chunks and clips are ragged. Dims of inputs are ``-1`` and checked by our own code,
whose errors name the remedy (Triton's own shape errors do not).
"""

from __future__ import annotations

from enum import IntFlag

from client.protocol.tensors import FUN_AUDIO_CHAT, ModelContract, TensorSpec


class ChunkFlag(IntFlag):
    """What a chunk of speech tokens means for the state of its token2wav stream.

    A stream is one span of speech. Its first chunk carries START, its last FINAL (both when it is
    the only one). RELEASE carries no tokens and drops the state of a stream that was cancelled.
    """

    CONTINUE = 0
    START = 1
    FINAL = 2
    RELEASE = 4


# In mel_lengths/audio_lengths, where a chunk has no result and its stream is over:
STATE_LOST = -1  # the stream's state is unknown here (a restart)
FLOW_FAILED, VOCODER_FAILED = -2, -3  # this chunk made the stage fail, or its result was not finite
LOST_STREAM = (STATE_LOST, FLOW_FAILED, VOCODER_FAILED)

_AUDIO_IN = (TensorSpec("audio", "FP32", (-1,)), TensorSpec("audio_lengths", "INT32", (-1,)))
_MEL_IN = (
    TensorSpec("mel", "FP32", (-1, -1)),  # [mel bins, frames of all clips one after another]
    TensorSpec("mel_lengths", "INT32", (-1,)),
)

LOG_MEL = ModelContract("log_mel", inputs=_AUDIO_IN, outputs=(*_MEL_IN, TensorSpec("speech_frames", "INT32", (-1,))))
AUDIO_ENCODER = ModelContract(
    "audio_encoder",
    inputs=(*_MEL_IN, TensorSpec("speech_frames", "INT32", (-1,))),
    outputs=(
        TensorSpec("audio_embeds", "FP32", (-1, -1)),  # [placeholders of all clips, backbone hidden]
        TensorSpec("audio_embed_lengths", "INT32", (-1,)),
    ),
)
SPEECH_ENCODER = ModelContract("speech_encoder", inputs=_AUDIO_IN, outputs=AUDIO_ENCODER.outputs)

_CHUNK_KEYS = (
    TensorSpec("stream_ids", "INT64", (-1,)),  # [chunks]
    TensorSpec("chunk_flags", "INT32", (-1,)),  # [chunks], values of ChunkFlag
)
_CHUNK_TOKENS = (
    TensorSpec("voices", "BYTES", (-1,)),  # [chunks], voice names; read on START only
    TensorSpec("tokens", "INT32", (-1,)),  # new tokens of all chunks one after another, 0..vocab-1
    TensorSpec("token_lengths", "INT32", (-1,)),  # [chunks]
)
_MEL_CHUNKS = (
    TensorSpec("mel", "FP32", (-1, -1)),  # [80, new frames of all chunks one after another]
    TensorSpec("mel_lengths", "INT32", (-1,)),  # [chunks]
)
_AUDIO_CHUNKS = (
    TensorSpec("audio", "FP32", (-1,)),  # new 24 kHz samples of all chunks one after another
    TensorSpec("audio_lengths", "INT32", (-1,)),  # [chunks]
)

FLOW = ModelContract("flow", inputs=(*_CHUNK_KEYS, *_CHUNK_TOKENS), outputs=_MEL_CHUNKS)
VOCODER = ModelContract("vocoder", inputs=(*_CHUNK_KEYS, *_MEL_CHUNKS), outputs=_AUDIO_CHUNKS)
TOKEN2WAV = ModelContract("token2wav", inputs=FLOW.inputs, outputs=VOCODER.outputs)

ALL_MODELS = (FUN_AUDIO_CHAT, LOG_MEL, AUDIO_ENCODER, SPEECH_ENCODER, FLOW, VOCODER, TOKEN2WAV)
