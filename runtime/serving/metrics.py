"""What the service tells its operator: which numbers there are, and what happened since they were last sent.

Recording is an append in this process. Sending crosses into Triton's process and takes about as long as
a response, so it is done for everything together, a few times a second, by the caller of ``take``.
Knows names and buckets; knows nothing of Triton.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from runtime.errors import OVERLOADS, Draining, EngineFault, InvalidRequest, NotFound, Overloaded, ServeError
from runtime.scheduling.caches import KV_RESOURCE, CacheSpec

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
# Seconds. A first sound is wanted within 0.1 s and is late after 1 s; a frame must take less than the 0.2 s it
# lasts; a chunk of sound lasts 0.4 to 1 s.
FIRST_S = (0.02, 0.04, 0.06, 0.08, 0.12, 0.17, 0.25, 0.35, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0)
STEP_S = (0.001, 0.002, 0.004, 0.006, 0.0086, 0.012, 0.02, 0.035, 0.06, 0.1, 0.2, 0.5, 1.0)
CALL_S = (0.005, 0.01, 0.02, 0.035, 0.06, 0.1, 0.17, 0.3, 0.5, 1.0, 2.0)
WAIT_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 96.0, 128.0)

REASONS = {
    InvalidRequest: "invalid_request",
    NotFound: "not_found",
    Draining: "draining",
    Overloaded: "overloaded",
    EngineFault: "engine_fault",
}
OTHER_REASON = "internal"
ENDS = ("stop", "length", "error")
MODES = ("s2s", "s2t")


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric: what it counts and, with a label, the label's values. All exist from the start, at 0."""

    name: str
    kind: str
    help: str
    buckets: tuple[float, ...] = ()
    label: str = ""
    values: tuple[str, ...] = ("",)


def metric_families(caches: Sequence[CacheSpec]) -> tuple[MetricFamily, ...]:
    """All metrics of a model with these caches."""
    refusals = (*REASONS.values(), *OVERLOADS, *(cache.resource for cache in caches), OTHER_REASON)
    return (
        MetricFamily("requests_total", COUNTER, "Requests that were accepted", label="mode", values=MODES),
        MetricFamily("answers_total", COUNTER, "Answers that ended, by how", label="end", values=ENDS),
        MetricFamily("cancels_total", COUNTER, "Requests whose client went away or cancelled"),
        MetricFamily(
            "rejects_total",
            COUNTER,
            "Requests that were refused, by reason",
            label="reason",
            values=refusals,
        ),
        MetricFamily("wait_seconds", HISTOGRAM, "From receiving a request to its slot, encoding included", WAIT_S),
        MetricFamily("first_text_seconds", HISTOGRAM, "From receiving a request to its first text", FIRST_S),
        MetricFamily("first_audio_seconds", HISTOGRAM, "From receiving a request to its first sound", FIRST_S),
        MetricFamily(
            "step_seconds", HISTOGRAM, "Time of one step of the frame loop: 0.2 s of speech per stream", STEP_S
        ),
        MetricFamily("batch_size", HISTOGRAM, "Streams that one step advanced", BATCH),
        MetricFamily(
            "token2wav_seconds", HISTOGRAM, "Time of one token2wav call, one chunk of each of its streams", CALL_S
        ),
        MetricFamily("token2wav_chunks_total", COUNTER, "Chunks of sound that were made"),
        MetricFamily("audio_seconds_total", COUNTER, "Seconds of sound that were sent"),
        MetricFamily(
            "underruns_total", COUNTER, "Chunks that came after a listener without a buffer had run dry (estimate)"
        ),
        MetricFamily("underrun_seconds_total", COUNTER, "Silence that such listeners heard (estimate)"),
        MetricFamily("live_requests", GAUGE, "Requests without a last response"),
        MetricFamily("counted_requests", GAUGE, "Live requests that count towards a limit per API key"),
        MetricFamily("live_streams", GAUGE, "Requests that hold a slot of the frame loop"),
        MetricFamily("queue_length", GAUGE, "Requests that are encoded or wait for a slot or for KV blocks"),
        MetricFamily("queue_length_interactive", GAUGE, "Those of them of the higher class"),
        MetricFamily("queue_length_batch", GAUGE, "Those of them of the lower class"),
        *(MetricFamily(f"kv_free_{c.name}", GAUGE, f"Free KV blocks of the {c.title}") for c in caches),
        *(MetricFamily(f"kv_used_{c.name}", GAUGE, f"Used KV blocks of the {c.title}") for c in caches),
        MetricFamily("prefix_hits", GAUGE, "Streams since the start that began behind a known system message"),
        MetricFamily("frames", GAUGE, "Batches of frames that were sent since the start"),
        MetricFamily("frame_seconds", GAUGE, "Time spent on sending them"),
    )


Key = tuple[str, str]  # name of the family, value of its label


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened since the last ``take``: added counts, and every observed value."""

    counts: dict[Key, float]
    observed: list[tuple[str, float]]


class Metrics:
    """Records events. ``step``, ``waited`` and ``rejected`` may come from other threads than the rest."""

    def __init__(self) -> None:
        self._counts: defaultdict[Key, float] = defaultdict(float)
        self._observed: deque[tuple[str, float]] = deque()
        self._rejected: deque[str] = deque()  # reasons; an append is safe in every thread, a count is not
        self.frames = 0  # batches of them
        self.frame_seconds = 0.0  # spent on them in the asyncio thread: decoding text, building and sending responses

    def accepted(self, mode: str) -> None:
        """A request passed all checks."""
        self._count("requests_total", mode)

    def rejected(self, error: BaseException) -> None:
        """A request was refused."""
        self._rejected.append(reason(error))

    def waited(self, seconds: float) -> None:
        """A request got its slot, so long after it came."""
        self._observed.append(("wait_seconds", seconds))

    def cancelled(self) -> None:
        """A client went away."""
        self._count("cancels_total")

    def ended(self, how: str) -> None:
        """An answer was sent completely, or ended by an error."""
        self._count("answers_total", how if how in ENDS else "error")

    def moment(self, name: str, seconds: float) -> None:
        """Something happened for the first time in a request, so long after it was received."""
        if name in ("first_text", "first_audio"):
            self._observed.append((f"{name}_seconds", seconds))

    def step(self, seconds: float, streams: int) -> None:
        """The frame loop made a step."""
        self._observed.append(("step_seconds", seconds))
        if streams:
            self._observed.append(("batch_size", streams))

    def spoke(self, seconds: float, chunks: int) -> None:
        """A token2wav call came back."""
        self._observed.append(("token2wav_seconds", seconds))
        self._count("token2wav_chunks_total", by=chunks)

    def sound(self, seconds: float, silence: float) -> None:
        """So much sound was sent; a listener had heard so much silence before it."""
        self._count("audio_seconds_total", by=seconds)
        if silence:
            self._count("underruns_total")
            self._count("underrun_seconds_total", by=silence)

    def take(self) -> Changes:
        """What happened since the last call."""
        for _ in range(len(self._rejected)):
            self._count("rejects_total", self._rejected.popleft())
        counts, self._counts = dict(self._counts), defaultdict(float)
        return Changes(counts, [self._observed.popleft() for _ in range(len(self._observed))])

    def _count(self, name: str, label: str = "", by: float = 1) -> None:
        self._counts[name, label] += by


def reason(error: BaseException) -> str:
    """The word for an error; few of them, because every value is a time series."""
    if not isinstance(error, ServeError):
        return OTHER_REASON
    if isinstance(error, Overloaded) and (error.field in OVERLOADS or error.field.startswith(KV_RESOURCE)):
        return error.field
    return next((word for kind, word in REASONS.items() if isinstance(error, kind)), OTHER_REASON)
