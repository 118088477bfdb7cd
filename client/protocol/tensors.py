"""The tensors of the public model. Knows names, types and dims, no library of Triton's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NUMPY_TYPES: dict[str, type] = {"FP32": np.float32, "INT32": np.int32, "INT64": np.int64, "BYTES": np.object_}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: Triton type name without ``TYPE_``, dims, and whether it may be absent."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in NUMPY_TYPES:
            raise ValueError(f"dtype: {self.dtype!r} is not one of {sorted(NUMPY_TYPES)}")

    def config(self) -> dict[str, object]:
        """The entry that ``auto_complete_model_config.add_input/add_output`` takes."""
        name = "TYPE_STRING" if self.dtype == "BYTES" else f"TYPE_{self.dtype}"
        entry: dict[str, object] = {"name": self.name, "data_type": name, "dims": list(self.dims)}
        if self.optional:
            entry["optional"] = True
        return entry


@dataclass(frozen=True, slots=True)
class ModelContract:
    """Inputs and outputs of one model of the repository."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    decoupled: bool = False


FUN_AUDIO_CHAT = ModelContract(
    name="fun_audio_chat",
    decoupled=True,
    inputs=(
        TensorSpec("audio", "FP32", (-1,), optional=True),
        TensorSpec("audio_lengths", "INT32", (-1,), optional=True),
        TensorSpec("text", "BYTES", (-1,), optional=True),
        TensorSpec("messages", "BYTES", (-1,), optional=True),
        # Warm-up samples of Triton carry no request parameters: this bounds the answer instead.
        TensorSpec("warmup_tokens", "INT32", (-1,), optional=True),
    ),
    outputs=(
        TensorSpec("text", "BYTES", (1,)),
        TensorSpec("audio", "FP32", (-1,)),
        TensorSpec("finish_reason", "BYTES", (1,)),
        TensorSpec("text_token_ids", "INT32", (-1,)),
        TensorSpec("speech_token_ids", "INT32", (-1,)),
        TensorSpec("stats", "BYTES", (1,)),
    ),
)
