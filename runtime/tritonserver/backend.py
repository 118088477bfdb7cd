"""Glue for ``model.py`` files of Triton's Python backend.

The module ``triton_python_backend_utils`` exists only inside Triton, so every function takes it, or
one of its objects, as an argument and this file imports anywhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from client.protocol.errors import MEMORY_FULL
from client.protocol.tensors import NUMPY_TYPES, ModelContract, TensorSpec
from runtime.errors import TRITON_CODES, EngineFault, InvalidRequest, ServeError, stage_fault
from runtime.logs import kind, log_fault
from runtime.tritonserver.stage_key import check_stage_key

logger = logging.getLogger(__name__)


def auto_complete(config: Any, contract: ModelContract) -> Any:
    """Fills inputs, outputs, batching and transaction policy of an auto-complete config."""
    config.set_max_batch_size(0)
    for spec in contract.inputs:
        config.add_input(spec.config())
    for spec in contract.outputs:
        config.add_output(spec.config())
    if contract.decoupled:
        config.set_model_transaction_policy({"decoupled": True})
    return config


def built_folder(args: dict[str, str]) -> Path:
    """The rendered folder (``build/<target>``) that holds this model's repository.

    Triton passes the model's own directory as ``model_repository``.
    """
    return Path(args["model_repository"]).parents[1]


def gpu(args: dict[str, str]) -> int:
    """Number of the GPU that this model's instance was placed on; 0 where there is none."""
    return int(args["model_instance_device_id"]) if args["model_instance_kind"] == "GPU" else 0


def inputs(request: Any, contract: ModelContract) -> dict[str, np.ndarray]:
    """The tensors that the request carries, as numpy arrays; optional ones may be missing.

    Raises:
        InvalidRequest: a tensor has another type than the contract says.
    """
    arrays: dict[str, np.ndarray] = {}
    for tensor in request.inputs():
        arrays[tensor.name()] = tensor.as_numpy()
    for spec in contract.inputs:
        array = arrays.get(spec.name)
        if array is not None and array.dtype != np.dtype(NUMPY_TYPES[spec.dtype]):
            raise InvalidRequest(spec.name, f"has type {array.dtype}", f"send {spec.dtype}")
    return arrays


def tensors(pb_utils: Any, specs: tuple[TensorSpec, ...], arrays: dict[str, np.ndarray]) -> list[Any]:
    """Backend tensors of the given arrays, in the contract's order and types."""
    return [
        pb_utils.Tensor(spec.name, np.ascontiguousarray(arrays[spec.name], dtype=NUMPY_TYPES[spec.dtype]))
        for spec in specs
        if spec.name in arrays
    ]


def respond(pb_utils: Any, contract: ModelContract, arrays: dict[str, np.ndarray]) -> Any:
    """An ``InferenceResponse`` with the given outputs."""
    return pb_utils.InferenceResponse(output_tensors=tensors(pb_utils, contract.outputs, arrays))


def fail(pb_utils: Any, error: BaseException, part: str = "server") -> Any:
    """An ``InferenceResponse`` that carries a typed error; any other exception becomes an EngineFault of ``part``."""
    if not isinstance(error, ServeError) and MEMORY_FULL in str(error):  # a typed one may quote the client
        error = stage_fault(str(error), part)
    if not isinstance(error, ServeError):
        # Without its message: that may quote another request of the same call.
        error = EngineFault(part, f"failed ({kind(error)})", "this is a fault of the server: see its log")
    code = getattr(pb_utils.TritonError, TRITON_CODES[error.code])
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))


def answer_each(
    pb_utils: Any,
    contract: ModelContract,
    requests: list[Any],
    run: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
) -> list[Any]:
    """One response per request of a stage; a failing request leaves the others alone."""
    responses = []
    for request in requests:
        try:
            check_stage_key(request.parameters(), contract.name)
            responses.append(respond(pb_utils, contract, run(inputs(request, contract))))
        except Exception as error:
            if not isinstance(error, InvalidRequest):
                log_fault(logger, f"{contract.name}: a request failed", error)
            responses.append(fail(pb_utils, error, contract.name))
    return responses
