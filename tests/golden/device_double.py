"""A device whose stream runs only when it is waited for: late work on reused memory shows as a wrong result."""

from __future__ import annotations

from collections.abc import Callable

import torch

from runtime.graphs.device import ALIGNMENT, aligned

STREAM = 77


class LazyMark:
    def __init__(self, device: LazyDevice, position: int) -> None:
        self._device, self._position = device, position

    def wait(self) -> None:
        self._device.run_until(self._position)


class LazyDevice:
    """Implements ``runtime.graphs.device.Device`` in CPU memory, and knows which of it is "device" memory.

    Args:
        hands_over: whether the caller's stream really waits in ``lead_caller``. Without it steps stay in flight.
    """

    stream = STREAM

    def __init__(self, hands_over: bool = True) -> None:
        self._hands_over = hands_over
        self._queue: list[Callable[[], None]] = []
        self._recording: list[Callable[[], None]] | None = None
        self._done = 0
        self._allocations: list[tuple[int, int, str]] = []
        self._keep: list[torch.Tensor] = []
        self.copies = 0
        self.waits = 0

    def _allocate(self, size: int, kind: str) -> torch.Tensor:
        memory = aligned(torch.zeros(size + ALIGNMENT, dtype=torch.uint8), size)
        self._keep.append(memory)
        self._allocations.append((memory.data_ptr(), memory.data_ptr() + size, kind))
        return memory

    def device_bytes(self, size: int) -> torch.Tensor:
        return self._allocate(size, "device")

    def host_bytes(self, size: int) -> torch.Tensor:
        return self._allocate(size, "host")

    def kind(self, address: int, size: int) -> str | None:
        """Which memory holds all these bytes."""
        return next(
            (kind for begin, end, kind in self._allocations if begin <= address and address + size <= end), None
        )

    def push(self, work: Callable[[], None]) -> None:
        (self._queue if self._recording is None else self._recording).append(work)

    @property
    def capturing(self) -> bool:
        return self._recording is not None

    def copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        assert self.kind(target.data_ptr(), target.nbytes) == "device", "copy into memory that is not the device's"
        self.copies += 1
        if self.kind(source.data_ptr(), source.nbytes) is None:
            source = source.clone()  # the caller's tensor: its stream order protects it
        self.push(lambda: target.copy_(source))

    def run_until(self, position: int) -> None:
        self.waits += position > self._done
        while self._done < position:
            self._queue[self._done]()
            self._done += 1

    def drain(self) -> None:
        self.run_until(len(self._queue))

    def follow_caller(self) -> None:
        pass

    def lead_caller(self) -> None:
        if self._hands_over:
            self.drain()

    def mark(self) -> LazyMark:
        return LazyMark(self, len(self._queue))

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.drain()
        self._recording = recorded = []
        try:
            work()
        finally:
            self._recording = None
        return lambda: self._queue.extend(recorded)
