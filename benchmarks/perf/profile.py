"""perf_analyzer's profile export as outcomes.

Its printed latency is that of one response of many, so first text, first sound and gaps come from the
export alone. Facts about the export that this file relies on (perf_analyzer of 24.09, tried): a tensor of
several elements is a list, of one element a scalar; an empty one is a scalar too, and holds garbage. So
a response has sound when its `audio` is a list.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.perf.outcome import Arrival, Outcome, outcome_of
from client.errors import ChatError

NS = 1e9
# The export spells every sample of every chunk out: 10 MB per 10 s of sound. Each list is cut to its length first.
_LIST = re.compile(rb'"(audio|text_token_ids|speech_token_ids)":\[([^\]]*)\]')


class TruncatedExport(ChatError):
    """perf_analyzer stopped in the middle of its export (the garbage of an empty tensor was no number)."""


def read_export(path: Path, mode: str) -> tuple[list[Outcome], float]:
    """Outcomes of all requests, and the seconds from the first request to the last response.

    Raises:
        TruncatedExport: the file has no end.
        ChatError: it is no export.
    """
    if not path.is_file():
        raise ChatError("NOT_FOUND", "perf_analyzer", "no export was written")
    raw = path.read_bytes()
    if not raw.rstrip().endswith(b"}"):
        raise TruncatedExport("INTERNAL", "perf_analyzer", f"{path.name} has no end; run it again")
    try:
        document = json.loads(_LIST.sub(_length, raw).decode("utf-8", errors="replace"))
        requests = [item for experiment in document["experiments"] for item in experiment["requests"]]
        outcomes = [_outcome(item, mode) for item in requests]
    except (ValueError, KeyError, TypeError) as error:
        raise ChatError("INTERNAL", "perf_analyzer", f"{path.name} is no profile export ({error!r})") from error
    stamps = [item["timestamp"] for item in requests] + [t for item in requests for t in item["response_timestamps"]]
    return outcomes, (max(stamps) - min(stamps)) / NS if stamps else 0.0


def _length(match: re.Match[bytes]) -> bytes:
    return b'"%s":[%d]' % (match[1], match[2].count(b",") + 1)


def _outcome(request: dict[str, Any], mode: str) -> Outcome:
    sent = request["timestamp"]
    arrivals = [
        _arrival((at - sent) / NS, response)
        for at, response in zip(request["response_timestamps"], request["response_outputs"], strict=True)
    ]
    finished = any(response.get("finish_reason") for response in request["response_outputs"])
    return outcome_of(mode, arrivals, "" if finished else "no last response", sent_s=sent / NS)


def _arrival(at_s: float, response: dict[str, Any]) -> Arrival:
    audio = response.get("audio")
    return Arrival(at_s, bool(response.get("text")), audio[0] if isinstance(audio, list) else 0)
