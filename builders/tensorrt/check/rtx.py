"""TensorRT-RTX in the place of TensorRT: its builder compiles for a GPU that is not there.

A sibling, not the same: one parser and one API, another code generator. It says that graphs parse, are typed as
meant and take their shapes; nothing of speed, and it is not what serves.
"""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType
from typing import Any

ARCHITECTURE = "SM80"  # of the A100; the H100's is not among those that it knows
MODULE = "tensorrt_rtx_bindings"


def install(counts: Counter[str]) -> None:
    """Makes it what ``import tensorrt`` finds. ``counts``: takes the layers of each kind and type of what is built."""
    import tensorrt_rtx_bindings as rtx  # type: ignore[import-not-found]

    class Builder(rtx.Builder):  # type: ignore[misc]
        """Compiles ahead of time."""

        def create_builder_config(self) -> Any:
            config = super().create_builder_config()
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(rtx.ComputeCapability, ARCHITECTURE), 0)
            return config

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            for i in range(network.num_layers):
                layer = network.get_layer(i)
                counts[f"{layer.type.name} {layer.get_output(0).dtype.name}"] += 1
            return super().build_serialized_network(network, config)

    module = ModuleType("tensorrt")
    vars(module).update({name: value for name, value in vars(rtx).items() if not name.startswith("_")})
    vars(module).update(Builder=Builder, __version__=rtx.__version__)
    sys.modules["tensorrt"] = module
