"""Turns one response of the server into a typed chunk. Knows the tensors, no connections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tritonclient.utils import deserialize_bytes_tensor

from .protocol.tensors import NUMPY_TYPES

OUTPUT_RATE = 24_000  # samples per second of `Chunk.audio`


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an answer; the concatenation of all pieces is the answer.

    Args:
        text: new text.
        audio: new samples, float32 at 24 kHz. # [samples]
        finish_reason: empty until the last piece: `stop` or `length`.
        text_token_ids: new text ids. # [tokens]
        speech_token_ids: new speech ids, whole groups of five. # [tokens]
        stats: counts and timings, on the last piece; None elsewhere or when not asked for.
    """

    text: str = ""
    audio: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    finish_reason: str = ""
    text_token_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    speech_token_ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    stats: Mapping[str, Any] | None = None


def chunk_of(response: Any) -> Chunk | None:
    """The chunk in a `ModelInferResponse`; None when it carries no outputs (an empty final response)."""
    values: dict[str, Any] = {}
    for output, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if output.datatype != "BYTES":
            values[output.name] = np.frombuffer(raw, dtype=NUMPY_TYPES[output.datatype])
        elif output.name == "stats":
            document = _string(raw)
            values["stats"] = json.loads(document) if document else None
        else:
            values[output.name] = _string(raw)
    return Chunk(**values) if values else None


def _string(raw: bytes) -> str:
    items = deserialize_bytes_tensor(raw)
    return items[0].decode("utf-8") if len(items) else ""
