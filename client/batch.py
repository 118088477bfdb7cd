"""The command `batch`: asks many questions at once, writes one folder of results, and resumes where it stopped."""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .access import Access, access_of, add_access
from .address import DEFAULT_URL
from .aio import AsyncChatClient
from .answer import check_overwrites
from .audio_file import read_audio
from .batch_items import Item, passed_over, read_items, summary_of
from .chunks import OUTPUT_RATE
from .errors import ChatError, ServerLost
from .parameters import parameter_set
from .protocol.command_line import FAILED, INTERRUPTED
from .protocol.requests import PRIORITIES
from .request import Scalar
from .retry import RetryPolicy
from .screen import Screen, screens
from .sound.quiet import quiet_decoder

FAILURES = "failed.jsonl"
DIGEST = "request_sha256"  # among the parameters in an answer's JSON
DONE = 0
# A batch has time: it outlasts a restart of the server and a full queue.
RETRY = RetryPolicy(attempts=6, first_s=0.5, most_s=8.0, reconnect_s=60.0)


@dataclass(slots=True)
class Tally:
    """What became of the items."""

    done: int = 0
    sound_s: float = 0.0
    failures: list[dict[str, str]] = field(default_factory=list)
    ended: str = ""  # why the rest was not asked
    passed_over: list[Path] = field(default_factory=list)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog=f"python -m {__package__} batch", description=__doc__)
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
    made.add_argument("--again", action="store_true", help="ask what is answered already, too, and replace it")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 when all is answered, 1 when something failed, 130 after Ctrl-C."""
    screen, errors = screens()
    made = parser()
    options = made.parse_args(arguments)
    if options.concurrency < 1:
        made.error(f"--concurrency {options.concurrency} is below 1")
    try:
        access = access_of(options)
    except ValueError as error:
        made.error(str(error))
    try:
        items = read_items(options.source, options.output_dir)
        make_folder(options.output_dir)
        check_overwrites((item.audio for item in items), options.output_dir, (item.id for item in items))
        waiting = [item for item in items if options.again or not answered(item, options)]
        tally = asyncio.run(run(options, waiting, access, errors))
        tally.passed_over = passed_over(options.source, options.output_dir)
        return conclude(options.output_dir, tally, len(items) - len(waiting), screen, errors)
    except ChatError as error:
        errors.say(str(error))
        return FAILED
    except OSError as error:
        errors.say(f"INTERNAL: output-dir: {error}; free it and start again")
        return FAILED
    except KeyboardInterrupt:
        errors.say("CANCELLED: batch: interrupted; the same command goes on where it stopped")
        return INTERRUPTED


def make_folder(folder: Path) -> None:
    """Makes the folder of the results.

    Raises:
        ChatError: nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        message = f"{folder} is no folder to write to ({error.strerror}); give another one"
        raise ChatError("INVALID_ARG", "output-dir", message) from error


def answered(item: Item, options: argparse.Namespace) -> bool:
    """Whether an earlier run left a complete answer to this request: the JSON file is written last.

    Raises:
        ChatError: the answer is one to another request.
    """
    path = options.output_dir / f"{item.id}.json"
    if not path.exists():
        return False
    try:
        found = json.loads(path.read_text("utf-8"))["parameters"][DIGEST]
        same = found == item.digest(_parameters(item, options))
    except (OSError, ValueError, LookupError, TypeError, ChatError):
        same = False
    if not same:
        remedy = "give --again to ask all anew, or another --output-dir"
        message = f"{path} does not answer what {item.id!r} asks now; {remedy}"
        raise ChatError("ALREADY_EXISTS", "output-dir", message)
    return True


async def run(options: argparse.Namespace, items: Sequence[Item], access: Access, errors: Screen) -> Tally:
    """Asks all items."""
    tally, waiting = Tally(), iter(items)
    async with AsyncChatClient(options.url, RETRY, tls=access.tls, headers=access.headers) as chat:

        async def work() -> None:
            for item in waiting:
                await chat.reconnect()  # a server that is away costs no item its own timeout
                await _ask(chat, item, options, tally)
                _show_progress(errors, tally, len(items))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(options.concurrency, len(items))):
                    group.create_task(work())
        except* ServerLost as losses:
            tally.ended = str(losses.exceptions[0])
        finally:
            if errors.isatty():
                errors.write("\n")
    return tally


def _show_progress(screen: Screen, tally: Tally, total: int) -> None:
    """Rewrites the one line of progress on a terminal; a log gets none."""
    if screen.isatty():
        screen.write(f"\r{tally.done + len(tally.failures)} of {total}")
        screen.flush()


async def _ask(chat: AsyncChatClient, item: Item, options: argparse.Namespace, tally: Tally) -> None:
    try:
        parameters: dict[str, Any] = _parameters(item, options)
        digest = item.digest(parameters)  # before the question can change under way
        speaks = parameters.get("mode", "s2s") == "s2s"
        wanted = ["text", "finish_reason", "text_token_ids", "stats"] + ["audio", "speech_token_ids"] * speaks
        sound = None if item.audio is None else await asyncio.to_thread(_sound, item.audio)
        answer = await chat.ask(
            sound,
            text=item.text,
            messages=item.messages,
            outputs=wanted,
            timeout=options.timeout,
            **parameters,
        )
        facts = _facts(item, parameters) | {DIGEST: digest}
        answer.write(options.output_dir, facts, speaks, with_stats=True, stem=item.id)
    except Exception as error:  # a fault of one item, whatever it is, is not one of the others
        if isinstance(error, ServerLost) and error.away:
            raise
        known = isinstance(error, ChatError)
        line = str(error) if known else f"INTERNAL: item: {type(error).__name__}: {error}; mend or remove it"
        tally.failures.append({"id": item.id, "error": line})
        return
    tally.done += 1
    tally.sound_s += answer.audio.size / OUTPUT_RATE


def _sound(path: Path) -> tuple[np.ndarray, int]:
    with quiet_decoder():
        return read_audio(path)


def _parameters(item: Item, options: argparse.Namespace) -> dict[str, Scalar]:
    return item.request_parameters({"priority": options.priority, **options.parameters})


def _facts(item: Item, parameters: Mapping[str, Scalar]) -> dict[str, Any]:
    return {**parameters, "id": item.id, "audio": None if item.audio is None else item.audio.name}


def conclude(folder: Path, tally: Tally, before: int, screen: Screen, errors: Screen) -> int:
    """Writes down what failed and says what became of the batch."""
    path = folder / FAILURES
    path.unlink(missing_ok=True)
    if tally.failures:
        lines = (json.dumps(failure, ensure_ascii=False) for failure in tally.failures)
        path.write_text("\n".join(lines) + "\n", "utf-8", errors="backslashreplace")
        first = tally.failures[0]
        say = f"{len(tally.failures)} failed, see {path}; first: {first['id']}: {first['error']}"
        errors.say(say)
    if tally.ended:
        errors.say(f"{tally.ended}; the same command goes on where it stopped")
    screen.say(f"{tally.done} answered ({tally.sound_s:.1f} s of sound), {before} were there already, in {folder}")
    if tally.passed_over:
        errors.say(summary_of(tally.passed_over))
    return FAILED if tally.failures or tally.ended else DONE
