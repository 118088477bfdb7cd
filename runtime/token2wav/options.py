"""Options of flow and vocoder."""

from __future__ import annotations

from dataclasses import dataclass

from runtime.graphs.options import AUTO, check_engine
from runtime.token2wav.hops import DEFAULT_HOPS, HopPolicy
from runtime.token2wav.layout import DEFAULT_WINDOW, STEP_GRAPHS

TOKEN2WAV_FOLDER = "token2wav"


@dataclass(frozen=True, slots=True)
class Token2WavOptions:
    """Folder of the exported flow and vocoder, and how chunks are cut, batched and bounded.

    ``max_streams``: most streams with state; a little above the frame loop's, for those whose end is
    under way. ``window``: blocks of 1 s that a frame sees before its own. ``hops``: tokens of the first
    chunks, the last number repeats. ``max_batch``: chunks of one call; a CPU gains nothing from more, and
    first chunks and cancels wait for the calls in flight. ``calls_in_flight``: calls at once, so that the
    vocoder of one overlaps the flow of the next. ``max_wait_s``: a chunk that waited so long goes ahead
    of others' first ones. ``slack_s``: while calls run, a listener who has so much to
    hear waits for larger chunks. ``full_attention``: the policy of the authors' demo server, with
    ``hops`` (15,). ``precision``: of the flow's products and caches, a key of ``layout.STEP_GRAPHS``.
    ``engine``: of the vocoder, as of the encoder; the flow on ``cuda`` is always torch (``docs/cuda.md``).
    """

    dir: str = TOKEN2WAV_FOLDER
    threads: int = 1
    max_streams: int = 24
    window: int = DEFAULT_WINDOW
    hops: tuple[int, ...] = DEFAULT_HOPS
    max_batch: int = 2
    calls_in_flight: int = 2
    max_wait_s: float = 1.0
    slack_s: float = 2.0
    full_attention: bool = False
    precision: str = "float32"
    engine: str = AUTO

    def __post_init__(self) -> None:
        HopPolicy(self.hops)
        check_engine(self.engine)
        if self.precision not in STEP_GRAPHS:
            raise ValueError(f"precision: {self.precision!r} is not one of {', '.join(STEP_GRAPHS)}")
        for name in ("max_streams", "max_batch", "calls_in_flight", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is below 1")
        if self.window < 0:
            raise ValueError(f"window: {self.window} is below 0")
