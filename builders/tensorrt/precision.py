"""Precisions of the language engines, and what each writes into a TensorRT-LLM checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from runtime.errors import BuildError

# Stored in bf16 all the same: the library quantises the projections of the layers when it loads them, and
# fails on every other linear layer that is not excluded here. Both heads decide ids, so they stay exact.
EXCLUDED_FROM_WEIGHT_ONLY = ("*lm_head", "*output_matching")
GROUP_SIZE = 128  # the library's default; only group-wise algorithms read it


@dataclass(frozen=True, slots=True)
class Precision:
    """``dtype`` of activations, KV cache and stored weights; ``quant_algo`` of the layers' weights.

    ``layer_bytes``: bytes of a weight of the layers' projections in the built engine.
    """

    name: str
    dtype: str
    quant_algo: str | None
    layer_bytes: int

    @property
    def compiles(self) -> bool:
        """Whether there may be an engine of it.

        In float32 the attention plugin goes without its fused kernels: a second chunk of a prompt would not see
        what is cached, without a word.
        """
        return self.dtype != "float32"

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of the stored tensors."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def quantization(self) -> dict[str, object]:
        """The ``quantization`` object of ``config.json``."""
        return {
            "quant_algo": self.quant_algo,
            "kv_cache_quant_algo": None,
            "group_size": GROUP_SIZE,
            "exclude_modules": list(EXCLUDED_FROM_WEIGHT_ONLY) if self.quant_algo else None,
        }

    @classmethod
    def named(cls, name: str) -> Precision:
        """Raises BuildError for an unknown name."""
        if name not in PRECISIONS:
            raise BuildError("precision", f"{name!r} is unknown", f"use one of {', '.join(compiled_names())}")
        return PRECISIONS[name]


PRECISIONS = {
    precision.name: precision
    for precision in (
        Precision("bf16", "bfloat16", None, layer_bytes=2),
        Precision("w8a16", "bfloat16", "W8A16", layer_bytes=1),
        # Exact copy of a float32 checkpoint, to compare engines with the recorded vectors.
        Precision("f32", "float32", None, layer_bytes=4),
    )
}


def compiled_names() -> list[str]:
    """Precisions that engines may have."""
    return [precision.name for precision in PRECISIONS.values() if precision.compiles]
