"""`python -m client batch`: many questions, so many at once, one folder of results; it goes on where it stopped."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from client.access import OPEN, Access, access_of, add_access
from client.aio import AsyncChatClient
from client.batch_items import Item, read_items
from client.chunks import OUTPUT_RATE
from client.connection import DEFAULT_URL
from client.errors import ChatError
from client.parameters import parameter_set
from client.request import Scalar
from client.retry import RetryPolicy
from runtime.waiting import PRIORITIES

FAILURES = "failed.jsonl"
DONE, FAILED, INTERRUPTED = 0, 1, 130
# A batch has time: it outlasts a restart of the server and a full queue.
RETRY = RetryPolicy(attempts=6, first_s=0.5, most_s=8.0, reconnect_s=60.0)


@dataclass(slots=True)
class Tally:
    """What became of the items."""

    done: int = 0
    sound_s: float = 0.0
    failures: list[dict[str, str]] = field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m client batch", description=__doc__)
    made.add_argument("source", type=Path, help="folder of sound files, or a JSONL manifest with one "
                      '{"id", "audio", "text", "messages", "parameters"} per line')  # fmt: skip
    made.add_argument("--output-dir", type=Path, default=Path("output/batch"), help="results (%(default)s)")
    made.add_argument("--concurrency", type=int, default=4, help="requests at once (%(default)s)")
    made.add_argument("--url", default=DEFAULT_URL, help="host:port of the gRPC endpoint (%(default)s)")
    add_access(made)
    made.add_argument("--parameters", type=parameter_set, default={}, metavar="A=1,B=2", help="of every request")
    made.add_argument(
        "--priority", choices=PRIORITIES, default=PRIORITIES[-1], help="of requests without one (%(default)s)"
    )
    made.add_argument("--timeout", type=float, help="seconds for one answer, repeats included (no limit)")
    made.add_argument("--again", action="store_true", help="ask what is answered already, too")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when all is answered, 1 when something failed, 130 after Ctrl-C."""
    made = parser()
    options = made.parse_args(arguments)
    if options.concurrency < 1:
        made.error(f"--concurrency {options.concurrency} is below 1")
    try:
        access = access_of(options)
    except ValueError as error:
        made.error(str(error))
    try:
        items = read_items(options.source)
        options.output_dir.mkdir(parents=True, exist_ok=True)
        waiting = [item for item in items if options.again or not answered(options.output_dir, item)]
        tally = asyncio.run(run(options, waiting, access))
    except ChatError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("CANCELLED: batch: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return INTERRUPTED
    return conclude(options.output_dir, tally, len(items) - len(waiting))


def answered(folder: Path, item: Item) -> bool:
    """Whether an earlier run left a complete answer: the JSON file is written last."""
    return (folder / f"{item.id}.json").is_file()


async def run(options: argparse.Namespace, items: Sequence[Item], access: Access = OPEN) -> Tally:
    """Asks all items."""
    tally, waiting = Tally(), iter(items)
    async with AsyncChatClient(options.url, RETRY, tls=access.tls, headers=access.headers) as chat:
        with tqdm(total=len(items), unit="answer", disable=None) as bar:

            async def work() -> None:
                for item in waiting:
                    await _ask(chat, item, options, tally)
                    bar.update()

            async with asyncio.TaskGroup() as group:
                for _ in range(min(options.concurrency, len(items))):
                    group.create_task(work())
    return tally


async def _ask(chat: AsyncChatClient, item: Item, options: argparse.Namespace, tally: Tally) -> None:
    parameters: dict[str, Any] = {"priority": options.priority, **options.parameters, **item.parameters}
    speaks = parameters.get("mode", "s2s") == "s2s"
    wanted = ["text", "finish_reason", "text_token_ids", "stats", *(("audio", "speech_token_ids") if speaks else ())]
    try:
        answer = await chat.ask(
            item.audio,
            text=item.text,
            messages=item.messages,
            outputs=wanted,
            timeout=options.timeout,
            **parameters,
        )
        answer.write(options.output_dir, _facts(item, parameters), speaks, with_stats=True, stem=item.id)
    except (ChatError, OSError) as error:
        tally.failures.append({"id": item.id, "error": str(error)})
        return
    tally.done += 1
    tally.sound_s += answer.audio.size / OUTPUT_RATE


def _facts(item: Item, parameters: Mapping[str, Scalar]) -> dict[str, Any]:
    return {**parameters, "id": item.id, "audio": None if item.audio is None else item.audio.name}


def conclude(folder: Path, tally: Tally, before: int) -> int:
    """Writes down what failed and says what became of the batch."""
    path = folder / FAILURES
    path.unlink(missing_ok=True)
    if tally.failures:
        lines = (json.dumps(failure, ensure_ascii=False) for failure in tally.failures)
        path.write_text("\n".join(lines) + "\n", "utf-8")
        first = tally.failures[0]
        print(f"{len(tally.failures)} failed, see {path}; first: {first['id']}: {first['error']}", file=sys.stderr)
    print(f"{tally.done} answered ({tally.sound_s:.1f} s of sound), {before} were there already, in {folder}")
    return FAILED if tally.failures else DONE
