"""A module on a device behind the interface of an exported graph: arrays by name in and out.

Sizes are rounded up by a rule, so that a few recordings serve all calls, and all of them can be made before
the first call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.graphs.executor import Executor, Work

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
Rule = Callable[[Shapes], Shapes]
SPARE = 1  # what fills integer rows that were not asked for: one frame


@dataclass(frozen=True, slots=True)
class _Recording:
    inputs: dict[str, torch.Tensor]
    outputs: dict[str, torch.Tensor]
    run: Work


class DeviceGraph:
    """Implements ``OnnxGraph.run``.

    Args:
        module: takes the inputs by name, gives the outputs in order.
        outputs: their names.
        shapes: sizes of a call to sizes that are recorded, never smaller; the surplus is zeros on the right.
    """

    def __init__(
        self,
        executor: Executor,
        module: Callable[..., torch.Tensor | tuple[torch.Tensor, ...]],
        outputs: Sequence[str],
        shapes: Rule,
    ) -> None:
        self._executor, self._module, self._outputs, self._shapes = executor, module, tuple(outputs), shapes
        self._recordings: dict[frozenset[tuple[str, tuple[int, ...]]], _Recording] = {}

    def __len__(self) -> int:
        """Recordings so far."""
        return len(self._recordings)

    @torch.inference_mode()
    def prepare(self, calls: Iterable[Arrays]) -> None:
        """Records for calls of these sizes and types; the largest first, then the others fit into their memory.

        Each is run once behind all recordings, so that no stream pays for pinned memory either.
        """
        wanted = list(calls)
        for arrays in wanted:
            self._recording(self._padded(arrays))
        for arrays in wanted:
            self.run(arrays)

    @torch.inference_mode()
    def run(self, arrays: Arrays) -> Arrays:
        """All outputs by name, with the call's own rows; what lies beyond its other sizes is of no meaning."""
        rows = next(iter(arrays.values())).shape[0]
        padded = self._padded(arrays)
        recording = self._recording(padded)
        for name, array in padded.items():
            self._executor.upload(recording.inputs[name], array)
        recording.run()
        tickets = {name: self._executor.fetch(tensor) for name, tensor in recording.outputs.items()}
        return {name: ticket.wait()[:rows].copy() for name, ticket in tickets.items()}

    def _padded(self, arrays: Arrays) -> Arrays:
        wanted = self._shapes({name: array.shape for name, array in arrays.items()})
        return {name: _pad(array, wanted[name]) for name, array in arrays.items()}

    def _recording(self, padded: Arrays) -> _Recording:
        key = frozenset((name, array.shape) for name, array in padded.items())
        if key not in self._recordings:
            inputs = {name: torch.tensor(array, device=self._executor.device) for name, array in padded.items()}
            made = self._call(inputs)
            outputs = {name: torch.zeros_like(tensor) for name, tensor in zip(self._outputs, made, strict=True)}

            def work() -> None:
                for target, source in zip(outputs.values(), self._call(inputs), strict=True):
                    target.copy_(source)

            self._recordings[key] = _Recording(inputs, outputs, self._executor.record(work, lambda: None))
        return self._recordings[key]

    def _call(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        made = self._module(**inputs)
        return made if isinstance(made, tuple) else (made,)


def _pad(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.shape == shape:
        return np.ascontiguousarray(array)
    padded = np.full(shape, SPARE if np.issubdtype(array.dtype, np.integer) else 0, array.dtype)
    padded[tuple(slice(size) for size in array.shape)] = array
    return padded
