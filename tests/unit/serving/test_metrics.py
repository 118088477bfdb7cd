"""Recorded events as Triton metrics, and the dashboard that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runtime.errors import OVERLOADS, BuildError, Draining, InvalidRequest, Overloaded
from runtime.scheduling.caches import CacheSpec
from runtime.serving.metrics import COUNTER, GAUGE, HISTOGRAM, Metrics, metric_families, reason
from runtime.tritonserver.metrics import PREFIX, MetricBoard, StageGauges

FAMILIES = metric_families(
    (CacheSpec("backbone", "backbone"), CacheSpec("speech", "speech head", 5, only_speaking=True))
)

DASHBOARD = Path(__file__).parents[3] / "dashboards" / "fun_audio_chat.json"
STAGE_GAUGES = {f"{stage}_{what}" for stage in ("flow", "vocoder") for what in ("streams", "state_bytes")}


class FakeMetric:
    def __init__(self, labels, buckets=None):
        self.labels, self.buckets, self.value, self.seen = labels, buckets, 0.0, []

    def set(self, value):
        self.value = value

    def increment(self, value):
        self.value += value

    def observe(self, value):
        self.seen.append(value)


class FakeFamily:
    COUNTER, GAUGE, HISTOGRAM = range(3)
    made: dict = {}  # noqa: RUF012

    def __init__(self, name, description, kind):
        self.name, self.metrics = name, []
        type(self).made[name] = self

    def Metric(self, **arguments):
        self.metrics.append(FakeMetric(**arguments))
        return self.metrics[-1]


class OldFamily(FakeFamily):
    """Of a Triton before histograms."""

    HISTOGRAM = property()
    made: dict = {}  # noqa: RUF012


del OldFamily.HISTOGRAM


class Backend:
    MetricFamily = FakeFamily


def shown(name, **labels):
    (metric,) = [m for m in FakeFamily.made[PREFIX + name].metrics if m.labels == labels]
    return metric


def test_events_arrive_as_metrics():
    board, metrics = MetricBoard(Backend(), FAMILIES), Metrics()
    metrics.accepted("s2s")
    metrics.accepted("s2s")
    metrics.ended("stop")
    metrics.cancelled()
    metrics.rejected(InvalidRequest("a", "b", "c"))
    metrics.moment("first_audio", 0.2)
    metrics.moment("encoded", 0.1)
    metrics.waited(0.3)
    metrics.step(0.004, 3)
    metrics.step(0.001, 0)
    metrics.spoke(0.05, 2)
    metrics.sound(1.0, 0.0)
    metrics.sound(1.0, 0.25)
    board.show({"live_requests": 2}, metrics.take())
    assert shown("requests_total", mode="s2s").value == 2 and shown("requests_total", mode="s2t").value == 0
    assert shown("answers_total", end="stop").value == 1 and shown("cancels_total").value == 1
    assert shown("rejects_total", reason="invalid_request").value == 1
    assert shown("first_audio_seconds").seen == [0.2] and shown("first_text_seconds").seen == []
    assert shown("wait_seconds").seen == [0.3]
    assert shown("step_seconds").seen == [0.004, 0.001] and shown("batch_size").seen == [3]
    assert shown("token2wav_seconds").seen == [0.05] and shown("token2wav_chunks_total").value == 2
    assert (shown("audio_seconds_total").value, shown("underruns_total").value) == (2, 1)
    assert shown("underrun_seconds_total").value == 0.25 and shown("live_requests").value == 2
    assert metrics.take().counts == {} and metrics.take().observed == []


def test_metrics_without_memory_stop_nobody(caplog):
    """Whoever shows them ends answers and polls cancels: it must go on."""
    board = MetricBoard(Backend(), FAMILIES)
    gauge = shown("live_requests")
    gauge.set = lambda value: [][0]
    for _ in range(3):
        board.show({"live_requests": 1}, Metrics().take())
    assert caplog.text.count("metrics could not be shown") == 1, "once, not twenty times a second"
    del gauge.set
    board.show({"live_requests": 1}, Metrics().take())
    assert gauge.value == 1


class Held:
    """A stage with two streams."""

    states, held_bytes = (1, 2), 4096


def test_gauges_without_memory_leave_the_calls_of_a_stage_alone(caplog):
    """The stage is done by then: an error would keep the next one from dropping its state of the same streams."""
    gauges = StageGauges(Backend(), "flow", Held())
    gauge = shown("flow_streams")
    gauge.set = lambda value: [][0]
    for _ in range(3):
        gauges.update()
    assert caplog.text.count("metrics could not be shown") == 1
    del gauge.set
    gauges.update()
    assert (gauge.value, shown("flow_state_bytes").value) == (2, 4096)


def test_reasons_are_few():
    assert reason(Draining("server", "x", "y")) == "draining" and reason(Overloaded("server", "x", "y")) == "overloaded"
    assert {reason(Overloaded(bound, "x", retry_after_s=1.0)) for bound in OVERLOADS} == set(OVERLOADS)
    assert reason(BuildError("a", "b", "c")) == "internal" and reason(KeyError()) == "internal"


def test_families_are_well_formed():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    for family in FAMILIES:
        assert family.name.endswith("_total") == (family.kind == COUNTER)
        assert bool(family.buckets) == (family.kind == HISTOGRAM)
        assert list(family.buckets) == sorted(set(family.buckets))


def test_the_dashboard_shows_every_family_and_no_other():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    used = set()
    for panel in panels:
        for target in panel["targets"]:
            used |= set(re.findall(rf"{PREFIX}(\w+)", target["expr"]))
    kinds = {family.name: family.kind for family in FAMILIES} | dict.fromkeys(STAGE_GAUGES, GAUGE)
    bare = {re.sub(r"_(bucket|sum|count)$", "", name) if name not in kinds else name for name in used}
    assert bare == set(kinds)
