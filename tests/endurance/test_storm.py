"""Some dozens of cancels of every kind, and some seconds of mixed traffic; `make storm` and `make soak` do the rest."""

import asyncio
import random
import time

from tests.endurance.freeing import LIMIT_MS, free_ms
from tests.endurance.pool import malformed, pool
from tests.endurance.storming import CALLS, Stage, Storm
from tests.endurance.talkers import Talkers, kill_client
from tests.endurance.traffic import Traffic
from tests.endurance.watching import SUPERVISOR, TRITON, Watcher, still_held
from tests.endurance.wire import wire_to

CANCELS, CLIENTS, SECONDS = 60, 12, 6.0


def test_a_storm_of_cancels_leaves_nothing(server):
    storm = Storm(server.url, Traffic(2, ()), CANCELS, seed=4)
    asyncio.run(storm.blow(CLIENTS, lambda: None))
    count = storm.count
    assert (count.hangs, count.lost, count.wrong) == (0, 0, []) and count.cancels >= CANCELS
    assert set(CALLS) <= set(count.by_stage), "every stage was met"
    assert still_held(server) == {}


def test_dropped_connections_and_killed_clients_leave_nothing(server):
    traffic = Traffic(3, ())
    storm = Storm(server.url, traffic, 1, seed=4)

    async def leave():
        await kill_client(server.url, [traffic.long() for _ in range(4)], 0.2)
        await storm.drop()

    asyncio.run(leave())
    assert storm.count.by_stage[Stage.DROPPED] and not storm.count.hangs
    assert still_held(server) == {}


def test_what_is_cancelled_is_free_within_two_frames(server):
    """Of groups until one is: the others also measure what else the machine does."""
    traffic, draw = Traffic(4, ()), random.Random(1)

    async def times():
        async with wire_to(server.url) as wire:
            for group in (1, 4) * 6:
                jobs = [traffic.spoken() for _ in range(group)]
                yield await free_ms(server, wire, jobs, draw.uniform(0.05, 0.8))

    async def first_in_time():
        return [spent async for spent in times() if spent <= LIMIT_MS][:1]

    assert asyncio.run(first_in_time())


def test_mixed_traffic(server):
    traffic = Traffic(6, ("other",))
    traffic.pin(3)
    end = time.monotonic() + 3600
    talkers = Talkers(server.url, traffic, pool(malformed(), 20, 1), 1, lambda: time.monotonic() > end)
    asyncio.run(talkers.remember())
    watcher = Watcher(server, 0.5)
    watcher.start()
    end = time.monotonic() + SECONDS
    asyncio.run(talkers.talk(8))
    watcher.stop()
    tally = talkers.tally
    assert tally.problems == [] and tally.completed > 5 and tally.ids_compared > 0
    assert still_held(server) == {} and watcher.restarts == 0
    seen = watcher.samples[-1]
    assert {SUPERVISOR, TRITON, "fun_audio_chat", "flow", "vocoder"} <= set(seen.processes) and seen.shm_mb > 1
    assert all(use.rss_mb > 1 and use.fds and use.threads for use in seen.processes.values())
