"""Which streams of a plan are new to the device."""

from __future__ import annotations

from collections.abc import Iterator

from runtime.scheduler import Plan
from runtime.stream import Stream


class Admission:
    """Remembers whose state lies in each slot. A stream is new at its first chunk, wherever that begins."""

    def __init__(self) -> None:
        self._owners: dict[int, Stream] = {}

    def new(self, plan: Plan) -> Iterator[Stream]:
        """Streams of the plan's chunks that the device does not know yet; it does from now on."""
        for chunk in plan.contexts:
            stream = chunk.stream
            if self._owners.get(stream.slot) is not stream:
                self._owners[stream.slot] = stream
                yield stream
