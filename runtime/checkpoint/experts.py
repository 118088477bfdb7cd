"""Sizes of a mixture of experts, as Qwen3-MoE's configuration states them."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.checkpoint.features import check_sizes
from runtime.checkpoint.fields import Fields
from runtime.checkpoint.files import shown
from runtime.checkpoint.keys import MODEL_TYPE, MOE, NUM_EXPERTS

MOST_EXPERTS = 1024  # of a layer: far beyond any model of this kind, as the bound on layers is
DENSE_LAYERS = "mlp_only_layers"


@dataclass(frozen=True, slots=True)
class ExpertSizes:
    """Experts of the layers that have some; the others have one MLP.

    Each row takes ``taken`` of ``count`` experts, whose MLPs are ``width`` wide; ``normalised``: their weights sum to
    one. Every ``step``-th layer has experts, but for ``dense_layers``.
    """

    count: int
    taken: int
    width: int
    normalised: bool
    step: int = 1
    dense_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_sizes(self, ("width", "step"))
        check_sizes(self, ("count", "taken"), MOST_EXPERTS)
        if self.taken > self.count:
            raise ValueError(f"num_experts_per_tok: {self.taken} exceeds num_experts {self.count}")

    def in_layer(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has experts: the rule of transformers."""
        return layer not in self.dense_layers and (layer + 1) % self.step == 0

    @classmethod
    def read(cls, fields: Fields) -> ExpertSizes | None:
        """From a decoder's section; None where its layers have no experts.

        Raises:
            BuildError: a key is missing or ill-typed.
        """
        if fields.values.get(MODEL_TYPE) != MOE:
            return None
        count = fields.get(NUM_EXPERTS, int)
        if not count:
            return None
        return cls(
            count=count,
            taken=fields.get("num_experts_per_tok", int),
            width=fields.get("moe_intermediate_size", int),
            normalised=fields.get("norm_topk_prob", bool),
            step=fields.get("decoder_sparse_step", int),
            dense_layers=_dense_layers(fields),
        )


def _dense_layers(fields: Fields) -> tuple[int, ...]:
    layers = fields.values.get(DENSE_LAYERS)
    if layers is None:
        return ()
    if not isinstance(layers, list) or any(type(layer) is not int for layer in layers):
        raise fields.error(DENSE_LAYERS, f"is {shown(layers)}", "a list of layer numbers is needed")
    return tuple(layers)
