"""One request from the command line, its answer on the screen and in three files."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .access import Access, access_of, add_access
from .address import DEFAULT_URL
from .answer import FILE_STEM, Answer, check_overwrites
from .audio_file import read_audio
from .client import ChatClient
from .errors import ChatError
from .protocol.command_line import FAILED, INTERRUPTED
from .protocol.requests import PRIORITIES
from .protocol.version import VERSION
from .request import DEFAULT_RATE
from .screen import Screen, screens
from .sinks import ChunkFolder, Loudspeaker, Sink, TextSink
from .sound.quiet import quiet_decoder

PROGRAM = f"python -m {__package__}"  # the name under which this package is installed
OTHERS = f"Many questions: {PROGRAM} batch --help."
INTERACTIVE, BATCH = PRIORITIES
SPEECH_MODE, TEXT_MODE = "s2s", "s2t"
# Option of the command line -> request parameter, where the names differ.
RENAMED = {"speaker": "voice"}
PARAMETERS = (
    "mode", "system", "speaker", "temperature", "top_p", "top_k", "repetition_penalty", "max_tokens", "seed", "greedy",
    "text_greedy", "hops", "earliest", "priority",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The command line. Options without a default are left to the server."""
    made = argparse.ArgumentParser(prog=PROGRAM, description=__doc__, epilog=OTHERS)
    add = made.add_argument
    add("--version", action="version", version=VERSION)
    add("--url", default=DEFAULT_URL, help="host:port of the gRPC endpoint (%(default)s)")
    add_access(made)
    add("--mode", choices=(SPEECH_MODE, TEXT_MODE), help=f"answer in speech or in text only ({SPEECH_MODE})")
    add("--audio-path", "-a", type=Path, help="question: WAV, FLAC, MP3, OGG, Opus and more; mixed to mono")
    add("--sampling-rate", type=int, help="resample the question to this rate before sending (its own rate)")
    add("--text", help="the user's words, or an instruction that follows the audio")
    add("--system", help="system message")
    add("--speaker", help="voice of the answer")
    add("--temperature", type=float)
    add("--top-p", type=float)
    add("--top-k", type=int)
    add("--repetition-penalty", type=float)
    add("--max-tokens", type=int)
    add("--seed", type=int)
    add("--greedy", action="store_true", default=None, help="always the most probable token")
    add(
        "--sample-text", dest="text_greedy", action="store_false", default=None,
        help="draw the text too; without it temperature, top-p and seed are for the speech only",
    )  # fmt: skip
    add("--hops", help="tokens of the chunks of sound, such as 15,10,25; the last number repeats")
    add("--earliest", action="store_true", default=None, help="first sound after two frames instead of four")
    add("--priority", choices=PRIORITIES, help=f"{BATCH} requests let others go first ({INTERACTIVE})")
    add("--timeout", type=float, help="seconds for the whole answer (no limit)")
    add("--output-dir", type=Path, default=Path("output"), help="folder for request_0.* (%(default)s)")
    add("--enable-stats", action="store_true", help="ask for the server's counts and timings")
    add("--play", action="store_true", help="play the answer while it arrives (needs sounddevice)")
    add("--save-chunks", type=Path, metavar="DIR", help="write every piece of sound into a file of its own")
    return made


def parameters_of(options: argparse.Namespace) -> dict[str, Any]:
    """The request parameters that the user set, by their name in the protocol."""
    given = {RENAMED.get(name, name): getattr(options, name) for name in PARAMETERS}
    return {name: value for name, value in given.items() if value is not None}


def outputs_of(options: argparse.Namespace) -> list[str]:
    """The outputs that this request needs: sending unwanted ones costs time."""
    wanted = ["text", "finish_reason", "text_token_ids"]
    if options.mode != TEXT_MODE:
        wanted += ["audio", "speech_token_ids"]
    return [*wanted, "stats"] if options.enable_stats else wanted


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 after an error, 2 for wrong usage, 130 after Ctrl-C; each with one line on stderr.

    A reader that leaves (`| head`) ends the text on the screen; the answer's files are written all the same, and the
    status is 0. A screen that fails, such as a full disk, is an error after they are written.
    """
    screen, errors = screens()
    made = parser()
    options = made.parse_args(arguments)
    if options.audio_path is None and options.text is None:
        made.error("nothing to ask: give --audio-path, --text or both")
    try:
        access = access_of(options)
    except ValueError as error:
        made.error(str(error))
    try:
        answer = _ask(options, access, screen)
        _report(answer, options, screen)
    except ChatError as error:
        return _fail(errors, str(error), FAILED)
    except OSError as error:
        return _fail(errors, f"INTERNAL: output: {error}; free it or give another --output-dir", FAILED)
    except KeyboardInterrupt:
        return _fail(errors, "CANCELLED: request: interrupted; it was cancelled on the server too", INTERRUPTED)
    if screen.failure is not None:
        where = f"the answer is in {options.output_dir}"
        return _fail(errors, f"INTERNAL: output: the screen failed ({screen.failure}); {where}", FAILED)
    return 0


def _fail(errors: Screen, message: str, status: int) -> int:
    errors.say(message)
    return status


def _ask(options: argparse.Namespace, access: Access, screen: Screen) -> Answer:
    audio, rate = (None, DEFAULT_RATE)
    if options.audio_path is not None:
        check_overwrites([options.audio_path], options.output_dir, [FILE_STEM])
        with quiet_decoder():
            audio, rate = read_audio(options.audio_path, options.sampling_rate)
    with ChatClient(options.url, tls=access.tls, headers=access.headers) as chat, _sinks(options, screen) as put:
        answer = Answer()
        with chat.stream(
            audio,
            rate,
            text=options.text,
            outputs=outputs_of(options),
            timeout=options.timeout,
            **parameters_of(options),
        ) as stream:
            for chunk in stream:
                answer.add(chunk)
                put(chunk)
    return answer


@contextlib.contextmanager
def _sinks(options: argparse.Namespace, screen: Screen) -> Iterator[Callable[[Any], None]]:
    sinks: list[Sink] = [TextSink(screen)]
    if options.save_chunks is not None:
        sinks.append(ChunkFolder(options.save_chunks))
    if options.play:
        sinks.append(Loudspeaker())

    def put(chunk: Any) -> None:
        for sink in sinks:
            sink.put(chunk)

    complete = False
    try:
        yield put
        complete = True
    finally:
        for sink in sinks:
            sink.close(complete)


def _report(answer: Answer, options: argparse.Namespace, screen: Screen) -> None:
    with_audio = options.mode != TEXT_MODE
    paths = answer.write(options.output_dir, parameters_of(options), with_audio, options.enable_stats)
    timings = answer.timings()
    first = f"first text {_seconds(timings['first_text_s'])}, first audio {_seconds(timings['first_audio_s'])}"
    screen.write(f"{first}, complete {_seconds(timings['total_s'])}, {timings['audio_s']:.2f} s of sound\n")
    for path in paths:
        screen.write(f"{path}\n")
    screen.flush()


def _seconds(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f} s"
