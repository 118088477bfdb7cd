"""`python -m benchmarks.perf`: measure, report, compare. The last line of a measurement is JSON."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.perf import agreement, analyzer, load, report
from benchmarks.perf.analyzer_install import find_analyzer
from benchmarks.perf.clips import load_clips
from benchmarks.perf.level import CLOSED, LISTENERS, POISSON
from benchmarks.perf.run import add_level, document, header, summary
from benchmarks.perf.target import server_at, warm_up
from benchmarks.record import save
from client.access import Access, access_of, add_access
from client.errors import ChatError
from client.parameters import parameter_set
from runtime.errors import ServeError
from runtime.supervisor.config import Addresses

DEFAULT_PARAMETERS = "max_tokens=20,seed=1"
FAILED, DISAGREE = 1, 3


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m benchmarks.perf", description=__doc__)
    commands = made.add_subparsers(dest="command", required=True)
    sweep = _measuring(commands, "analyzer", "sweep with NVIDIA's perf_analyzer")
    _levels(sweep, concurrency="1,2,4", rates="0.5,1")
    own = _measuring(commands, "load", "sweep with our own generator: listeners, mixed modes, cancels")
    _levels(own, concurrency="", rates="0.5,1")
    own.add_argument("--listeners", type=_numbers, default=_numbers("1,2,4"), help="listeners in real time (1,2,4)")
    own.add_argument("--s2t-share", type=float, default=0.25, help="of the requests ask for text only (%(default)s)")
    own.add_argument("--cancel-share", type=float, default=0.1, help="of the requests are cancelled (%(default)s)")
    own.add_argument("--think", type=float, default=0.5, help="seconds between hearing and asking (%(default)s)")
    both = _measuring(commands, "agree", "the same load by both, in turns", requests=200)
    _levels(both, concurrency="1", rates="")
    both.add_argument("--rounds", type=int, default=5, help="turns of each (%(default)s)")
    drawn = commands.add_parser("report", help="Markdown and plots from stored runs")
    drawn.add_argument("runs", nargs="*", type=Path, help="files of --save")
    drawn.add_argument("--to", type=Path, required=True, help="folder for report.md and its plots")
    pair = commands.add_parser("compare", help="two stored runs, with ratios")
    pair.add_argument("before", type=Path)
    pair.add_argument("after", type=Path)
    return made


def _measuring(commands: Any, name: str, words: str, requests: int = 40) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = commands.add_parser(name, help=words)
    at = Addresses()
    made.add_argument("--out", type=Path, default=Path("build/cpu"), help="built folder, served when none runs")
    made.add_argument("--host", default=at.host)
    for port, default in at.ports().items():
        made.add_argument(f"--{port.replace('_', '-')}", type=int, default=default)
    add_access(made)
    made.add_argument("--audio", type=Path, help="folder of questions (default: speech-like sound of 0.8 to 5.5 s)")
    made.add_argument("--requests", type=int, default=requests, help="at each level (%(default)s)")
    made.add_argument(
        "--parameters",
        action="append",
        type=parameter_set,
        metavar="A=1,B=2",
        help=f"of every request; repeat for several sets, each swept on its own ({DEFAULT_PARAMETERS})",
    )
    made.add_argument("--save", type=Path, help="JSON file for `report` and `compare`")
    made.add_argument("--note", default="", help="kept with the numbers, for example what else the machine did")
    return made


def _levels(made: argparse.ArgumentParser, concurrency: str, rates: str) -> None:
    made.add_argument(
        "--concurrency", type=_numbers, default=_numbers(concurrency), help=f"closed loop ({concurrency})"
    )
    made.add_argument("--rates", type=_numbers, default=_numbers(rates), help=f"Poisson, per second ({rates})")


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part.strip())


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0; 1 after an error, with one line on stderr; 3 when `agree` finds that they do not."""
    options = parser().parse_args(arguments)
    command = "python -m benchmarks.perf " + shlex.join(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.command == "report":
            return report.write(options.runs, options.to, command)
        if options.command == "compare":
            return report.print_comparison(options.before, options.after)
        return _COMMANDS[options.command](options, command)
    except (ChatError, ServeError, ValueError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
    except KeyboardInterrupt:
        print("CANCELLED: perf: interrupted", file=sys.stderr)
    return FAILED


def _points(options: argparse.Namespace) -> list[tuple[str, float]]:
    listeners = [(LISTENERS, value) for value in getattr(options, "listeners", ())]
    return [(CLOSED, v) for v in options.concurrency] + [(POISSON, v) for v in options.rates] + listeners


def _sets(options: argparse.Namespace) -> list[dict[str, Any]]:
    return options.parameters or [parameter_set(DEFAULT_PARAMETERS)]


@contextlib.contextmanager
def _server(options: argparse.Namespace, access: Access) -> Iterator[tuple[Addresses, str]]:
    addresses = Addresses(options.host, options.grpc_port, options.http_port, options.metrics_port)
    with server_at(addresses, options.out, access) as words:
        print(f"server at {addresses.grpc} {words}; warming up", file=sys.stderr)
        warm_up(addresses.grpc, access)
        yield addresses, words


def _analyzer(options: argparse.Namespace, command: str) -> int:
    binary, clips = find_analyzer(), load_clips(options.audio)
    points = [analyzer.Point(kind, value) for kind, value in _points(options)]
    access = access_of(options)
    models = "; ".join(f"{kind} = {words}" for kind, words in analyzer.LOAD_MODELS.items())
    with _server(options, access) as (addresses, words):
        run = document("perf_analyzer", command, models, clips, server=words, note=options.note)
        print(header())
        for chosen in _sets(options):
            for point in points:
                at = (binary, addresses.grpc, clips, point, options.requests, chosen, access)
                measure = partial(analyzer.measure, *at)
                add_level(run, measure, addresses.metrics_url)
    return _finish(run, options)


def _load(options: argparse.Namespace, command: str) -> int:
    clips, access = load_clips(options.audio), access_of(options)
    specs = [
        load.LoadSpec(kind, value, options.requests, options.s2t_share, options.cancel_share, think_s=options.think)
        for kind, value in _points(options)
    ]
    models = "; ".join(dict.fromkeys(f"{spec.kind} = {spec.words()}" for spec in specs))
    with _server(options, access) as (addresses, words):
        run = document("load", command, models, clips, server=words, note=options.note)
        print(header())
        for chosen in _sets(options):
            for spec in specs:
                measure = partial(load.measure, addresses.grpc, clips, spec, chosen, access)
                add_level(run, measure, addresses.metrics_url)
    return _finish(run, options)


def _agree(options: argparse.Namespace, command: str) -> int:
    binary, clips, pairs, access = find_analyzer(), load_clips(options.audio), [], access_of(options)
    with _server(options, access) as (addresses, words):
        models = "both in turns: " + "; ".join(f"{kind} = {text}" for kind, text in analyzer.LOAD_MODELS.items())
        run = document("agree", command, models, clips, server=words, note=options.note)
        print(header())
        for chosen in _sets(options):
            for kind, value in _points(options):
                point = analyzer.Point(kind, value)
                at = (binary, addresses.grpc, clips, point, options.requests, options.rounds, chosen, access)
                pair = agreement.compare(*at)
                for name in agreement.NAMES:
                    made = {**pair["levels"][name], "load": f"{name}: {pair['load']}"}
                    add_level(run, partial(dict, made), addresses.metrics_url)
                pairs.append({name: pair[name] for name in ("load", "ratio", "agree", "rounds")})
                print(f"first audio p50, ours / perf_analyzer's: {pair['ratio']}")
    run["agreement"] = pairs
    _finish(run, options)
    return 0 if all(pair["agree"] for pair in pairs) else DISAGREE


def _finish(run: dict[str, Any], options: argparse.Namespace) -> int:
    save(run, options.save, indent=1)
    print(summary(run))
    answered = any(made["requests"] > made["errors"] for made in run["levels"])
    return 0 if answered else FAILED


_COMMANDS = {"analyzer": _analyzer, "load": _load, "agree": _agree}
