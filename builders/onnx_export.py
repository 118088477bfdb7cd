"""One torch module as one ONNX file, with the exported graph checked in ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.fx.experimental._config
from torch import nn

from runtime.errors import BuildError
from runtime.graphs.onnx import OnnxGraph

OPSET = 20  # the newest that every TensorRT which we support parses
TOLERANCE = 2e-4  # absolute, float32, on outputs of order one


def export_checked(
    module: nn.Module,
    inputs: dict[str, Any],
    dims: dict[str, dict[int, Any]],
    outputs: list[str],
    path: Path,
    tolerance: float = TOLERANCE,
) -> list[Path]:
    """Writes the graph and returns its files.

    Args:
        inputs: probe tensors by the names of the module's arguments; the check runs on them.
        dims: free axes of each input.
            A tuple of tensors is as many inputs, named ``<name>_<number>``.
        outputs: names of the outputs.
        tolerance: relative to outputs of order one.

    Raises:
        BuildError: the graph disagrees with torch on the probe.
    """
    # The exporter reports libraries that we do not use; that cannot be acted on here.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    for stale in path.parent.glob(path.name + "*"):
        stale.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside the exporter
        program = torch.onnx.export(
            _capture(module, inputs, dims),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(_flat(inputs)),
            output_names=outputs,
            verbose=False,
        )
        assert program is not None
        program.save(str(path))
    with torch.inference_mode():
        expected = module(**inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = OnnxGraph(path, threads=1).run({name: tensor.numpy() for name, tensor in _flat(inputs).items()})
    for name, tensor in zip(outputs, expected, strict=True):
        error = float(np.abs(found[name].astype(np.float32) - tensor.float().numpy()).max())
        allowed = tolerance * max(1.0, float(tensor.abs().max()))
        if not error <= allowed:
            raise BuildError(f"{path.name}: {name}", f"differs from torch by {error:.2e}", f"{allowed:.0e} is allowed")
    return sorted(path.parent.glob(path.name + "*"))


def _capture(
    module: nn.Module, inputs: dict[str, Any], dims: dict[str, dict[int, Any]]
) -> torch.export.ExportedProgram:
    """The graph with its axes free.

    Not left to the exporter: that of torch 2.9 takes an axis that may be 1 for a constant, or asks for
    another range than the one that it is given.
    """
    with torch.fx.experimental._config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        return torch.export.export(
            module,
            (),
            inputs,
            dynamic_shapes=dims,
            strict=False,
            prefer_deferred_runtime_asserts_over_guards=True,
        )


def _flat(inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
    flat: dict[str, torch.Tensor] = {}
    for name, value in inputs.items():
        flat |= {f"{name}_{i}": part for i, part in enumerate(value)} if isinstance(value, tuple) else {name: value}
    return flat
