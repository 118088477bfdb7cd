"""`make demo`: one spoken question to a fresh server on a built folder, the answer in output/.

Starts the server on free ports, asks through the command line client, stops the server. Exit status 0
only when all of it worked.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.perf.clips import made_question
from client.audio_file import write_wav
from client.cli import main as ask
from client.protocol.command_line import run_command
from client.request import DEFAULT_RATE
from runtime.errors import ServeError
from runtime.supervisor.launch import ServerProcess

MAX_TOKENS = 60
QUESTION_S = 2.5  # of speech-like sound
RESULTS = ("request_0.txt", "request_0.wav", "request_0.json")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    made.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder (%(default)s)")
    made.add_argument("--output-dir", type=Path, default=Path("output"), help="for question and answer (%(default)s)")
    made.add_argument("--max-tokens", type=int, default=MAX_TOKENS)
    made.add_argument("--trained", action="store_true", help="the folder holds trained weights")
    made.add_argument("--start-timeout", type=float, default=1800.0, help="seconds for the server (%(default)s)")
    return made


def main() -> int:
    """Runs the demo."""
    options = parser().parse_args()
    try:
        return _demo(options)
    except ServeError as error:
        print(f"demo: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("demo: interrupted", file=sys.stderr)
    return 1


def _demo(options: argparse.Namespace) -> int:
    output = options.output_dir
    output.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:  # an old answer must not pass for the new one
        (output / name).unlink(missing_ok=True)
    asked = output / "question.wav"
    write_wav(asked, made_question(QUESTION_S), DEFAULT_RATE)
    print(f"question: {asked} ({QUESTION_S:.1f} s)", flush=True)

    began = time.monotonic()
    with ServerProcess(options.out, start_timeout=options.start_timeout) as server:
        print(f"server ready after {time.monotonic() - began:.1f} s on {server.url}; its answer:", flush=True)
        arguments = ["--url", server.url, "--audio-path", str(asked), "--output-dir", str(output), "--enable-stats"]
        status = ask([*arguments, "--max-tokens", str(options.max_tokens), "--seed", "0"])
        if status:
            print(f"--- end of the server's log\n{server.tail()}", file=sys.stderr)
        stopped = server.stop()
    return _conclude(output, options.trained, status, stopped)


def _conclude(output: Path, trained: bool, status: int, stopped: int) -> int:
    if status or stopped:
        print(f"demo: failed (client exit status {status}, server exit status {stopped})", file=sys.stderr)
        return 1
    missing = [name for name in RESULTS if not (output / name).is_file()]
    if missing:
        print(f"demo: failed, {', '.join(missing)} was not written", file=sys.stderr)
        return 1
    answer = json.loads((output / RESULTS[-1]).read_text("utf-8"))
    print(f"finish reason {answer['finish_reason']}, {len(answer['speech_token_ids'])} speech tokens; server stopped")
    if not trained:
        print(
            "These weights are random: the text is gibberish and the sound is noise. For real answers build from\n"
            "the released checkpoints: make demo MODEL=<Fun-Audio-Chat dir> COSYVOICE=<CosyVoice3 dir>\n"
            "[VOICES=<spk2info.pt>]"
        )
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
