"""Many clients of one golden request in a process of their own, so that their work does not slow the test's measuring.

Prints one JSON document: facts of every request, and by how much this process itself was late. A refused client
tries again after a fixed pause, whatever the server's hint says: worse manners than those of our clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))

from harness import request_of

from client import NO_RETRY, AsyncChatClient, ChatError

CONNECTIONS = 4


async def ask(client, request):
    """One request as facts: how it ended and when what came, in seconds."""
    fact = {"error": "", "ids": [], "codes": [], "finish": "", "first_s": None, "began": time.time()}
    sent = time.perf_counter()
    try:
        async with client.stream(timeout=60, **request) as stream:
            async for chunk in stream:
                if fact["first_s"] is None:
                    fact["first_s"] = time.perf_counter() - sent
                fact["ids"] += chunk.text_token_ids.tolist()
                fact["codes"] += chunk.speech_token_ids.tolist()
                fact["finish"] = chunk.finish_reason
    except ChatError as error:
        fact["error"], fact["hint"] = str(error), getattr(error, "retry_after_s", None)
    fact["total_s"] = time.perf_counter() - sent
    return fact


async def lateness(every_s=0.01):
    """How late the event loop of this process wakes up, in seconds, until it is cancelled: no fault of the server."""
    late = []
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            due = time.perf_counter() + every_s
            await asyncio.sleep(every_s)
            late.append(time.perf_counter() - due)
    return late


async def flood(url, request, workers, seconds, pause):
    """So many workers, each with one request at a time, until the time is over; then what is admitted ends."""
    clients = [AsyncChatClient(url, NO_RETRY) for _ in range(CONNECTIONS)]
    facts, end = [], time.perf_counter() + seconds

    async def work(client):
        while time.perf_counter() < end:
            facts.append(await ask(client, request))
            if facts[-1]["error"]:
                await asyncio.sleep(pause)

    watch = asyncio.create_task(lateness())
    await asyncio.gather(*(work(clients[i % CONNECTIONS]) for i in range(workers)))
    for client in clients:
        await client.close()
    watch.cancel()
    return {"facts": facts, "late_s": await watch}


def main():
    options = json.loads(sys.argv[1])
    request = request_of(options.pop("case")) | options.pop("parameters", {})
    print(json.dumps(asyncio.run(flood(request=request, **options))))


if __name__ == "__main__":
    main()
