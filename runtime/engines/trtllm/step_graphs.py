"""Which steps may be replayed from a captured CUDA graph, and the graphs captured so far.

A graph freezes shapes and host values. So only steps of generating sequences qualify, one graph per
number of sequences, and the one host value that grows (``host_past_key_value_lengths``, for generation an
upper bound that the kernels are chosen by) is rounded up, as the C++ runtime of TensorRT-LLM does.
Not yet run on a GPU, therefore off unless asked for.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from runtime.engines.base import GENERATION
from runtime.engines.trtllm.arena import HostArena

PAST = "host_past_key_value_lengths"
PAST_STEP = 256  # positions; the step in which the C++ runtime rounds its bound
SIGHTINGS = 2  # TensorRT wants one ordinary run of a shape before its capture, and rare shapes are not worth one
COUNTED = 4096  # shapes that are counted before the counts begin anew


@dataclass(frozen=True, slots=True)
class GraphKey:
    """What a graph is good for: so many generating sequences, none with more cached positions than ``bound``."""

    sequences: int
    bound: int


@dataclass(frozen=True, slots=True)
class Captured:
    """Queues the graph; ``host`` is the memory whose addresses it holds."""

    replay: Callable[[], None]
    host: HostArena


class Decision(Enum):
    """What to do with a step."""

    RUN = "run"
    RUN_AND_CAPTURE = "run and capture"
    REPLAY = "replay"


def graph_key(bindings: Mapping[str, np.ndarray], max_seq_len: int) -> GraphKey | None:
    """The key of a step, or None when it holds a context."""
    kinds = bindings["host_request_types"]
    if int(kinds.min()) != GENERATION:
        return None
    longest = int(bindings[PAST].max())
    return GraphKey(len(kinds), min(-(-longest // PAST_STEP) * PAST_STEP, max_seq_len - 1))


def with_bound(bindings: Mapping[str, np.ndarray], key: GraphKey) -> dict[str, np.ndarray]:
    """The bindings with the key's bound in place of exact lengths."""
    return {**bindings, PAST: np.full(key.sequences, key.bound, bindings[PAST].dtype)}


class GraphCache:
    """The graphs of one engine, least recently used ones dropped first.

    Args:
        capacity: graphs to keep; 0 switches them off. Every graph holds some MB of device memory.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"graphs: {capacity} is negative")
        self._capacity = capacity
        self._graphs: OrderedDict[GraphKey, Captured] = OrderedDict()
        self._seen: Counter[GraphKey] = Counter()

    def __len__(self) -> int:
        return len(self._graphs)

    def key(self, bindings: Mapping[str, np.ndarray], max_seq_len: int) -> GraphKey | None:
        """The key of a step that a graph could serve; None when it cannot or graphs are off."""
        return graph_key(bindings, max_seq_len) if self._capacity else None

    def decide(self, key: GraphKey | None) -> Decision:
        """What to do with a step; counts the sighting."""
        if key is None:
            return Decision.RUN
        if key in self._graphs:
            return Decision.REPLAY
        if len(self._seen) >= COUNTED:
            self._seen.clear()
        self._seen[key] += 1
        return Decision.RUN_AND_CAPTURE if self._seen[key] >= SIGHTINGS else Decision.RUN

    def get(self, key: GraphKey) -> Captured:
        """The graph of a key that ``decide`` found; it becomes the most recently used."""
        self._graphs.move_to_end(key)
        return self._graphs[key]

    def put(self, key: GraphKey, captured: Captured) -> None:
        """Keeps a graph. The one that has to go is not running: a capture waits for the device."""
        self._graphs[key] = captured
        del self._seen[key]
        if len(self._graphs) > self._capacity:
            self._graphs.popitem(last=False)

    def switch_off(self) -> None:
        """No graphs from now on."""
        self._capacity = 0
        self._graphs.clear()
