"""Numbers of the runtime on Triton's metrics endpoint."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, Protocol

from runtime.logs import log_fault
from runtime.serving.metrics import GAUGE, HISTOGRAM, Changes, MetricFamily

PREFIX = "fun_audio_chat_"
NO_CHANGES = Changes({}, [])

logger = logging.getLogger(__name__)


class Losses:
    """A metric takes shared memory. Where there is none numbers are lost, and nothing else."""

    def __init__(self) -> None:
        self._losing = False

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Ends whatever fails in the block; the log has it once, until a block succeeds."""
        try:
            yield
            self._losing = False
        except Exception as error:
            if not self._losing:
                log_fault(logger, "metrics could not be shown", error)
            self._losing = True


class MetricBoard:
    """Metrics of some families. A metric lives as long as its family, so both are kept.

    Args:
        pb_utils: of Triton's Python backend; one without histograms gets none of them.
    """

    def __init__(self, pb_utils: Any, families: Sequence[MetricFamily]) -> None:
        kinds = pb_utils.MetricFamily
        self._families, self._metrics = [], {}
        self._losses = Losses()
        for family in families:
            if not hasattr(kinds, family.kind.upper()):
                continue
            made = kinds(name=PREFIX + family.name, description=family.help, kind=getattr(kinds, family.kind.upper()))
            self._families.append(made)
            for value in family.values:
                self._metrics[family.name, value] = _metric(made, family, value)

    def show(self, values: Mapping[str, float], changes: Changes) -> None:
        """Sets the gauges, adds what was counted and observed."""
        with self._losses.allowed():
            self._show(values, changes)

    def _show(self, values: Mapping[str, float], changes: Changes) -> None:
        for name, value in values.items():
            self._metrics[name, ""].set(value)
        for key, value in changes.counts.items():
            self._metrics[key].increment(value)
        for name, value in changes.observed:
            if (name, "") in self._metrics:
                self._metrics[name, ""].observe(value)


def _metric(made: Any, family: MetricFamily, value: str) -> Any:
    labels = {family.label: value} if family.label else {}
    if family.kind == HISTOGRAM:
        return made.Metric(labels=labels, buckets=list(family.buckets))
    return made.Metric(labels=labels)


class Stage(Protocol):
    """A stage that keeps state of its streams."""

    @property
    def states(self) -> Sized:
        """One entry for each stream."""

    @property
    def held_bytes(self) -> int:
        """Memory that streams hold."""


class StageGauges:
    """Streams and bytes that a token2wav stage holds."""

    def __init__(self, pb_utils: Any, name: str, stage: Stage) -> None:
        self._name, self._stage = name, stage
        streams = MetricFamily(f"{name}_streams", GAUGE, f"streams with state in {name}")
        held = MetricFamily(f"{name}_state_bytes", GAUGE, f"bytes of state in {name}")
        self._board = MetricBoard(pb_utils, (streams, held))

    def update(self) -> None:
        """Call after every change."""
        values = {f"{self._name}_streams": len(self._stage.states), f"{self._name}_state_bytes": self._stage.held_bytes}
        self._board.show(values, NO_CHANGES)
