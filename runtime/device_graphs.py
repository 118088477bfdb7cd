"""A torch module on a device behind the interface of an exported graph: arrays by name in and out.

Sizes are rounded up by a rule, so that a few recordings serve all calls.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from runtime.frames.executor import Executor, Work
from runtime.token2wav.context import DECODER_LOOKAHEAD, PITCH_LEFT, PITCH_LOOKAHEAD

Arrays = dict[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]
FRAME_STEP = 16  # mel frames between sizes of the vocoder's windows
SPARE = 1  # what fills integer rows that nobody asked for: one frame


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
        shapes: Callable[[Shapes], Shapes],
    ) -> None:
        self._executor, self._module, self._outputs, self._shapes = executor, module, tuple(outputs), shapes
        self._recordings: dict[tuple[tuple[str, tuple[int, ...]], ...], _Recording] = {}

    @torch.inference_mode()
    def run(self, arrays: Arrays) -> Arrays:
        """All outputs by name, with the call's own rows; what lies beyond its other sizes is of no meaning."""
        rows = next(iter(arrays.values())).shape[0]
        wanted = self._shapes({name: array.shape for name, array in arrays.items()})
        padded = {name: _pad(array, wanted[name]) for name, array in arrays.items()}
        recording = self._recording(padded)
        for name, array in padded.items():
            self._executor.upload(recording.inputs[name], array)
        recording.run()
        tickets = {name: self._executor.fetch(tensor) for name, tensor in recording.outputs.items()}
        return {name: ticket.wait()[:rows].copy() for name, ticket in tickets.items()}

    def _recording(self, padded: Arrays) -> _Recording:
        key = tuple((name, array.shape) for name, array in padded.items())
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


def _rows(count: int) -> int:
    return 1 << (count - 1).bit_length()


def encoder_shapes(shapes: Shapes) -> Shapes:
    """Windows rounded up to a power of two."""
    return {name: (_rows(shape[0]), *shape[1:]) for name, shape in shapes.items()}


def vocoder_shapes(frame_samples: int) -> Callable[[Shapes], Shapes]:
    """Rows rounded up to a power of two, windows to multiples of ``FRAME_STEP`` frames of source.

    Mel and pitch windows follow from the source's: it is the longest of the three in every call.
    """

    def rule(shapes: Shapes) -> Shapes:
        rows = _rows(shapes["mel"][0])
        frames = -(-shapes["noise"][1] // frame_samples // FRAME_STEP) * FRAME_STEP
        bins, harmonics = shapes["mel"][1], shapes["noise"][2]
        return {
            **{name: (rows, *shape[1:]) for name, shape in shapes.items()},
            "mel_pitch": (rows, bins, frames + PITCH_LEFT + PITCH_LOOKAHEAD),
            "mel": (rows, bins, frames + DECODER_LOOKAHEAD),
            "noise": (rows, frames * frame_samples, harmonics),
        }

    return rule
