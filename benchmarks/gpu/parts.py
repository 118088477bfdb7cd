"""The parts of a bench by name, in the order in which they run: what others rest on first, the longest last."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

from benchmarks.gpu.answers import AnswersBeside, first_audio_ms, sustained
from benchmarks.gpu.checks import COMPARISONS, Check, run_checks
from benchmarks.gpu.lab import Lab
from benchmarks.gpu.language_rows import frame_rows, fused_rows, prefill_rows, same_frames, step_rows
from benchmarks.gpu.ledger import Fact, Item
from benchmarks.gpu.measure import Measured
from benchmarks.gpu.profiles import flow_profile, profiled, store_rows
from benchmarks.gpu.together import company, joining_rows
from runtime.graphs.executor import EagerExecutor

HOPS = {"hop 15": (15, 10, 10, 15, 25), "earliest": (7, 5, 5, 8, 10, 15, 25)}
NAIVE_STREAMS = 32  # more would need too much memory for caches that are copied in every layer
SUSTAINED_FRAMES = {"full": 75, "tiny": 16}
RECORDED_STREAMS, RECORDED_FRAMES = 3, 6
FIRST_AUDIO_RUNS = 10


def _naive(lab: Lab) -> int:
    return 0 if lab.given.no_naive else NAIVE_STREAMS


def _checks(lab: Lab) -> Iterator[Item]:
    """What is compared is said before: a process that ends there has a place to go on from."""
    wanted, done = list(lab.given.comparisons or COMPARISONS), list[str]()
    yield Fact("comparisons", wanted, told=False)
    for name in wanted:
        done.append(name)
        yield Fact("compared", list(done), told=False)
        yield from run_checks(lab.sizes, lab.device, lab.dtype, [name])


def _recorded(lab: Lab) -> Iterator[Item]:
    count = min(RECORDED_STREAMS, max(lab.sizes.streams))
    same, what = same_frames(lab.language, EagerExecutor(lab.device), count, RECORDED_FRAMES)
    yield Check(f"recorded frames, {what}", 0.0 if same else 1.0, 0.0)


def _steps(lab: Lab) -> Iterator[Item]:
    yield from step_rows(lab.language, lab.clock, _naive(lab))


def _frames(lab: Lab) -> Iterator[Item]:
    yield from frame_rows(lab.language, lab.clock, _naive(lab))


def _prefill(lab: Lab) -> Iterator[Item]:
    yield from prefill_rows(lab.language, lab.clock)


def _fused(lab: Lab) -> Iterator[Item]:
    yield from fused_rows(lab.language, lab.clock)


def _encoder(lab: Lab) -> Iterator[Item]:
    yield from lab.sound.encoder_rows(lab.clock)


def _chunks(lab: Lab) -> Iterator[Item]:
    yield from lab.sound.chunk_rows(lab.sizes.runs)


def _first_audio(lab: Lab) -> Iterator[Item]:
    for name, hops in HOPS.items():
        taken = first_audio_ms(lab.language, lab.sound, lab.clock, hops, min(lab.sizes.runs, FIRST_AUDIO_RUNS))
        yield Measured(f"first audio in process, {name}", taken, note="3 s question, two silent groups")


def _sustained(lab: Lab) -> Iterator[Item]:
    frames, sound, found = SUSTAINED_FRAMES[lab.sizes.name], lab.sound, dict[str, int]()
    yield Fact("sound_streams", lab.sound_streams)
    yield Fact("sustained_frames", frames)
    counts = [count for count in lab.sizes.sustained if count <= lab.sound_streams]
    for count, underruns in sustained(lab.language, sound, counts, HOPS["hop 15"], frames):
        found[str(count)] = underruns
        yield Fact("underruns", dict(found))
        yield Fact("sustained_streams", max((int(tried) for tried, dry in found.items() if not dry), default=0))


def _beside(lab: Lab) -> Iterator[Item]:
    """The same with sound in a process of its own, as a server has it: without MPS a GPU runs them by turns."""
    frames, found = SUSTAINED_FRAMES[lab.sizes.name], dict[str, int]()
    with closing(lab.sound_child()) as sound:
        counts = [count for count in lab.sizes.sustained if count <= lab.sound_streams]
        for count, dry in sustained(lab.language, sound, counts, HOPS["hop 15"], frames, AnswersBeside):
            found[str(count)] = dry
            yield Fact("underruns_beside", dict(found))
            streams = max((int(tried) for tried, dry in found.items() if not dry), default=0)
            yield Fact("sustained_streams_beside", streams)


def _company(lab: Lab) -> Iterator[Item]:
    yield from company(lab.language)


def _joining(lab: Lab) -> Iterator[Item]:
    yield from joining_rows(lab.language, lab.clock)


def _flow_profile(lab: Lab) -> Iterator[Item]:
    path: Path = lab.given.profile
    path.parent.mkdir(parents=True, exist_ok=True)
    text, shares = flow_profile(lab.sound, lab.clock, lab.on_gpu)
    path.write_text(text, "utf-8")
    yield Fact("flow_shares", shares)
    yield from store_rows(lab.sound, lab.clock)


def _profile(lab: Lab) -> Iterator[Item]:
    path: Path = lab.given.profile
    path.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for made in profiled(lab.language, lab.clock, lab.on_gpu):
        text += made
        path.write_text(text, "utf-8")
    yield Fact("profile", path.name)


SOUND = ("encoder", "chunks", "first_audio", "sustained", "sustained_beside", "flow_profile")
PROFILE, FLOW_PROFILE = PROFILES = "profile", "flow_profile"  # only where a file for them is named
BESIDE = "sustained_beside"
ASKED_FOR = (BESIDE, "company", "joining", FLOW_PROFILE)  # parts that must be named
PARTS: Mapping[str, Callable[[Lab], Iterator[Item]]] = {
    "checks": _checks, "recorded": _recorded, "steps": _steps, "frames": _frames, "prefill": _prefill,
    "company": _company, "joining": _joining, "fused": _fused, "encoder": _encoder, "chunks": _chunks,
    "first_audio": _first_audio, "sustained": _sustained, BESIDE: _beside,
    FLOW_PROFILE: _flow_profile, PROFILE: _profile,  # last, because they slow down what follows
}  # fmt: skip
