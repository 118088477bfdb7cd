"""Sizes of a Qwen3 decoder stack, as a checkpoint states them."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.checkpoint.experts import ExpertSizes
from runtime.checkpoint.features import check_sizes
from runtime.checkpoint.fields import Fields
from runtime.checkpoint.rope import rope_theta

# Far beyond any model of this kind; without a bound a slip of a key would fill the memory with names.
MOST_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class DecoderConfig:
    """A Qwen3 decoder stack.

    ``output_size`` is the width of the logits: the vocabulary or the codebook. ``experts``: of a mixture of experts.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    rope_theta: float
    rms_norm_eps: float
    max_positions: int
    output_size: int
    experts: ExpertSizes | None = None

    def __post_init__(self) -> None:
        sizes = ("hidden_size", "num_heads", "num_kv_heads", "head_dim", "intermediate_size", "output_size")
        check_sizes(self, sizes)
        check_sizes(self, ("num_layers",), MOST_LAYERS)
        if self.max_positions < 1 or not self.rms_norm_eps > 0:
            raise ValueError(f"max_positions, rms_norm_eps: {self.max_positions}, {self.rms_norm_eps} are not positive")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"num_heads: {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim: {self.head_dim} is odd, rotary positions need pairs")

    def experts_of(self, layer: int) -> ExpertSizes | None:
        """The experts of a layer, counted from 0; None where it has one MLP."""
        return self.experts if self.experts is not None and self.experts.in_layer(layer) else None

    @classmethod
    def read(cls, fields: Fields, output_size: int) -> DecoderConfig:
        """From a ``text_config`` or ``crq_transformer_config`` section."""
        return cls(
            hidden_size=fields.get("hidden_size", int),
            num_layers=fields.get("num_hidden_layers", int),
            num_heads=fields.get("num_attention_heads", int),
            num_kv_heads=fields.get("num_key_value_heads", int),
            head_dim=fields.get("head_dim", int),
            intermediate_size=fields.get("intermediate_size", int),
            rope_theta=rope_theta(fields),
            rms_norm_eps=fields.get("rms_norm_eps", float),
            max_positions=fields.get("max_position_embeddings", int),
            output_size=output_size,
            experts=ExpertSizes.read(fields),
        )
