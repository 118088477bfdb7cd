"""From cancel to free: several requests are cancelled at one moment, and the gauges are read until all is free.

The model shows its numbers ten times a second, so what is measured is at most a tenth of a second too long.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence

import numpy as np

from runtime.supervisor.launch import ServerProcess
from tests.endurance.traffic import Job
from tests.endurance.watching import gauges_of, held
from tests.endurance.wire import Wire

PATIENCE_S = 60.0
LOOK_EVERY_S = 0.005
STAGES_S = (0.02, 1.5)  # a moment between these: encoding, waiting, prefill, speaking, token2wav
LIMIT_MS = 400.0  # two frames of speech


async def free_ms(server: ServerProcess, wire: Wire, jobs: Sequence[Job], after_s: float) -> float:
    """Milliseconds from cancelling all jobs, so long after they were sent, until the server holds nothing."""
    calls = [asyncio.create_task(wire.ask(job.payload, PATIENCE_S)) for job in jobs]
    await asyncio.sleep(after_s)
    began = time.monotonic()
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    while held(await asyncio.to_thread(gauges_of, server)):
        if time.monotonic() - began > PATIENCE_S:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return 1000 * (time.monotonic() - began)


def moment(draw: random.Random) -> float:
    """When to cancel, in seconds after sending."""
    return draw.uniform(*STAGES_S)


def summary(times_ms: Sequence[float]) -> dict[str, float]:
    """Percentiles as fields of the result."""
    if not times_ms:
        return {}
    points = {"p50": 50, "p95": 95, "max": 100}
    return {f"free_ms_{name}": round(float(np.percentile(times_ms, point)), 1) for name, point in points.items()}
