"""The source noise on a device: rows are gathered there, so that of each call only their begins are copied."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from runtime.graphs.memory import TorchMemory
from runtime.token2wav.noise import Noise


class DeviceNoise:
    """``Noise`` over its first axis, whole in the memory's device: 260 MB of the released 300 s.

    From the host a call of 16 rows would bring 23 MB.
    """

    def __init__(self, noise: Noise, memory: TorchMemory) -> None:
        self._table: torch.Tensor = memory.put(noise.window(0, noise.length))

    def windows(self, begins: Sequence[int], span: int) -> torch.Tensor:
        length, device = len(self._table), self._table.device
        places = torch.tensor(begins, device=device)[:, None] + torch.arange(span, device=device)
        return self._table[places % length]
