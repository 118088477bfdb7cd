"""``python -m builders``: make the tiny checkpoints, build a folder, check one."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from client.protocol.command_line import run_command
from client.protocol.version import VERSION
from runtime.manifest import verify


def _path(text: str) -> Path | None:
    return _folder(text) if text else None  # an empty make variable means "not given"


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder")
    try:
        text.encode()
    except UnicodeEncodeError:  # libraries that are not Python's cannot open it, and JSON cannot name it
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8; rename it") from None
    return Path(text)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m builders", description=__doc__)
    top.add_argument("--version", action="version", version=VERSION)
    commands = top.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="from checkpoints to engines and a model repository")
    build.add_argument("--target", default="cpu", help="cpu, cuda, or tensorrt inside its container")
    build.add_argument("--out", type=_folder, required=True, help="folder to write, for example build/cpu")
    build.add_argument("--model", type=_path, help="Fun-Audio-Chat directory; without it a tiny one is made")
    build.add_argument("--cosyvoice", type=_path, help="CosyVoice3 directory")
    build.add_argument("--voices", type=_path, help="spk2info.pt; default: the one of the CosyVoice3 directory")
    build.add_argument("--profile", help="sizes for a GPU, for example h100-bf16; target cpu has none")
    build.add_argument(
        "--token2wav-apart", action="store_true", help="GPU targets: flow and vocoder have a GPU of their own"
    )
    build.add_argument("--linear", default="dense", help="target cuda: dense, or weight-only int8 or fp8")
    build.add_argument(
        "--sound", default="", help="encoder, flow and vocoder: torch or tensorrt, on the targets cuda and tensorrt"
    )
    build.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.NAME=VALUE",
        help="an option of options.json, repeatable, such as limits.streams_per_key=4 (docs/options.md)",
    )
    tiny = commands.add_parser("tiny", help="only the tiny checkpoints")
    tiny.add_argument("--out", type=_folder, required=True)
    check = commands.add_parser("verify", help="whether a built folder is complete and up to date")
    check.add_argument("--out", type=_folder, required=True)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Exit status 0, or 1 with one line on stderr."""
    options = parser().parse_args(arguments)
    return run_command(lambda: _COMMANDS[options.command](options))


def _verify(options: argparse.Namespace) -> None:
    verify(options.out)


# Each command imports late, so that `verify` and usage errors need no torch.
def _tiny(options: argparse.Namespace) -> None:
    from builders.build import make_tiny

    make_tiny(options.out)


def _build(options: argparse.Namespace) -> None:
    from builders.build import build
    from builders.request import BuildRequest
    from builders.settings import Settings

    request = BuildRequest(
        options.target,
        options.out,
        options.model,
        options.cosyvoice,
        options.voices,
        options.profile,
        options.token2wav_apart,
        options.linear,
        Settings.read(options.set),
        options.sound,
    )
    build(request, lambda line: print(line, flush=True))


_COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {"build": _build, "tiny": _tiny, "verify": _verify}

if __name__ == "__main__":
    sys.exit(main())
