"""Is one step what a compiled engine may be given? The rules of profile and attention plugin, on the host.

The plugin checks little and a wrong step would read or write memory of other sequences, so this asks
before anything is queued. All of it is a few microseconds of numpy.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtime.engines.base import CONTEXT
from runtime.engines.trtllm.spec import INPUT_EMBEDS, EngineProfile
from runtime.errors import EngineFault

REMEDY = "report this: scheduler, packer and engine disagree"
Shape = tuple[int, ...]


def check_step(
    profile: EngineProfile, rows: Shape, bindings: Mapping[str, np.ndarray], pool_address: int
) -> dict[str, Shape]:
    """The shape of every input of a step.

    Args:
        profile: what the engine is compiled for.
        rows: shape of ``inputs_embeds``.
        bindings: every other input.
        pool_address: of the engine's own KV pool.

    Raises:
        EngineFault: naming the first tensor that cannot be bound and what it should be.
    """
    shapes = {INPUT_EMBEDS: rows}
    for spec in profile.inputs:
        if spec.name != INPUT_EMBEDS:
            array = bindings.get(spec.name)
            if array is None:
                raise _fault(spec.name, f"is not among the bindings, the engine takes {spec}")
            if array.dtype != spec.dtype:
                raise _fault(spec.name, f"is {array.dtype}, the engine takes {spec}")
            shapes[spec.name] = array.shape
        if not spec.allows(shapes[spec.name]):
            raise _fault(spec.name, f"has shape {list(shapes[spec.name])}, the engine takes {spec}")
    unknown = sorted(bindings.keys() - shapes.keys())
    if unknown:
        raise _fault(unknown[0], "is no input of the engine")
    if int(bindings["host_kv_cache_pool_pointers"][0, 0]) != pool_address:
        raise _fault("host_kv_cache_pool_pointers", "names the pool of another engine")
    _check_rows(profile, rows[0], bindings)
    return shapes


def _check_rows(profile: EngineProfile, rows: int, bindings: Mapping[str, np.ndarray]) -> None:
    kinds = bindings["host_request_types"]
    lengths = np.diff(bindings["last_token_ids"], prepend=0)
    if int(bindings["last_token_ids"][-1]) != rows:
        raise _fault("last_token_ids", f"ends at {bindings['last_token_ids'][-1]} of {rows} rows")
    if (np.diff(kinds) < 0).any():
        raise _fault("host_request_types", f"{kinds.tolist()}: contexts must come first")
    contexts = kinds == CONTEXT
    if (lengths[~contexts] != 1).any():
        raise _fault("last_token_ids", "a generating sequence has exactly one row")
    if (lengths[contexts] > profile.max_input_len).any():
        raise _fault("context_lengths", f"{lengths.max()} rows exceed max_input_len {profile.max_input_len}")


def _fault(name: str, problem: str) -> EngineFault:
    return EngineFault(name, problem, REMEDY)
