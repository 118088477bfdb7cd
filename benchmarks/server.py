"""A running server from outside: its metrics, and what it adds to an iteration of the frame loop."""

from __future__ import annotations

import http.client
import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from client import ChatClient
from runtime.supervisor.launch import ServerProcess
from runtime.tritonserver.metrics import PREFIX

GPU_MEMORY = "nv_gpu_memory_used_bytes"  # Triton's own family
ANSWER_S = 5.0
QUESTION = "Tell me about the river that runs down to the sea."
OUTPUTS = ("text", "finish_reason", "text_token_ids", "speech_token_ids")
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is no way to a local server


def scrape(metrics_url: str) -> dict[str, float]:
    """Sums of all Prometheus samples by name; empty when there is no answer."""
    try:
        with _OPENER.open(metrics_url, timeout=ANSWER_S) as page:
            text = page.read().decode()
    except (OSError, http.client.HTTPException):
        return {}
    values: dict[str, float] = {}
    for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.M):
        values[name] = values.get(name, 0.0) + float(value)
    return values


def server_ms(out: Path, streams: int, frames: int) -> float:
    """Milliseconds per iteration with so many live streams, on a server of its own: decoding, building, sending.

    The service counts the time itself, in the thread that sends; sound is not asked for, so that
    token2wav does not share the processor.
    """
    with ServerProcess(out) as server, ChatClient(server.url) as client:

        def talk(seed: int) -> int:
            options: dict[str, Any] = {"seed": seed, "greedy": True, "max_tokens": frames}
            return sum(1 for _ in client.stream(text=QUESTION, outputs=OUTPUTS, timeout=120, **options))

        talk(0)
        before = scrape(server.addresses.metrics_url)
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(talk, range(streams)))
        after = scrape(server.addresses.metrics_url)
    seconds, iterations = (after[PREFIX + name] - before[PREFIX + name] for name in ("frame_seconds", "frames"))
    return 1000 * seconds / iterations
