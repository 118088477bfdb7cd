"""What the real server adds to an iteration of the frame loop: decoding text, building and sending responses."""

from __future__ import annotations

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from client import ChatClient
from runtime.supervisor.launch import ServerProcess

QUESTION = "Tell me about the river that runs down to the sea."
OUTPUTS = ("text", "finish_reason", "text_token_ids", "speech_token_ids")


def server_ms(out: Path, streams: int, frames: int) -> float:
    """Milliseconds per iteration with so many live streams, on a server of its own.

    The service counts the time itself, in the thread that sends; sound is not asked for, so that
    token2wav does not share the processor.
    """
    with ServerProcess(out) as server, ChatClient(server.url) as client:

        def talk(seed: int) -> int:
            options = {"seed": seed, "greedy": True, "max_tokens": frames}
            return sum(1 for _ in client.stream(text=QUESTION, outputs=OUTPUTS, timeout=120, **options))

        talk(0)
        before = _counters(server.addresses.metrics_url)
        with ThreadPoolExecutor(streams) as pool:
            list(pool.map(talk, range(streams)))
        after = _counters(server.addresses.metrics_url)
    seconds, iterations = (after[name] - before[name] for name in ("frame_seconds", "frames"))
    return 1000 * seconds / iterations


def _counters(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=5) as page:
        text = page.read().decode()
    return {name: float(value) for name, value in re.findall(r"^fun_audio_chat_(\w+)(?:{[^}]*})? (\S+)", text, re.M)}
