"""Many clients of one golden request in a process of their own, so that their work does not slow the test's measuring.

Prints one JSON line per request. A refused client tries again after a fixed pause, whatever the server's hint says:
worse manners than those of our clients.
"""

from __future__ import annotations

import asyncio
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


async def flood(url, request, workers, seconds, pause):
    """So many workers, each with one request at a time, until the time is over; then what is admitted ends."""
    clients = [AsyncChatClient(url, NO_RETRY) for _ in range(CONNECTIONS)]
    facts, end = [], time.perf_counter() + seconds

    async def work(client):
        while time.perf_counter() < end:
            facts.append(await ask(client, request))
            if facts[-1]["error"]:
                await asyncio.sleep(pause)

    await asyncio.gather(*(work(clients[i % CONNECTIONS]) for i in range(workers)))
    for client in clients:
        await client.close()
    return facts


def main():
    options = json.loads(sys.argv[1])
    request = request_of(options.pop("case")) | options.pop("parameters", {})
    for fact in asyncio.run(flood(request=request, **options)):
        print(json.dumps(fact))


if __name__ == "__main__":
    main()
