"""What a run of the GPU bench rests on: parts that fail alone, floors, a fair baseline, what is built and when."""

import json
from argparse import Namespace
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import answers, lab, language_rows, ledger, run
from benchmarks.gpu.checks import Check
from benchmarks.gpu.floor import Floor, maker_figures
from benchmarks.gpu.language import LanguageBench
from benchmarks.gpu.ledger import Fact, Ledger
from benchmarks.gpu.measure import Clock, Measured, record
from benchmarks.gpu.naive import NaiveFrames, baseline
from builders.released import full, tiny
from kernels.ops import twin_ops
from runtime.errors import EngineFault
from runtime.graphs.executor import EagerExecutor

GIVEN = {
    "device": "cpu", "tiny": True, "linear": "dense", "fused": False, "no_naive": False, "no_sound": False,
    "window": 4, "parts": None, "profile": None, "comparisons": None,
}  # fmt: skip


def command(**others):
    return Namespace(**GIVEN | others)


@pytest.fixture(scope="module")
def bench():
    torch.manual_seed(0)
    return LanguageBench(tiny(), EagerExecutor(), twin_ops(), torch.float32, "dense", False)


@pytest.fixture
def clock():
    return Clock(torch.device("cpu"), 1)


def stored(path):
    return json.loads(path.read_text())


def test_what_was_found_is_on_disk_at_once(tmp_path, capsys):
    """A run that is killed keeps all of it, and does not count as passed."""
    path, seen = tmp_path / "new" / "a.json", []

    def part():
        yield Measured("row", 2.0)
        seen.append((stored(path)["rows"][0]["name"], "row " in capsys.readouterr().out))
        yield Check("check", float("nan"), 1.0)
        seen.append((stored(path)["checks"][0]["error"], "FAIL  check" in capsys.readouterr().out))
        yield Fact("sustained_streams", 3)
        seen.append((stored(path)["sustained_streams"], "sustained streams: 3" in capsys.readouterr().out))
        raise KeyboardInterrupt

    found = Ledger({"tool": "t"}, path)
    with suppress(KeyboardInterrupt):
        found.run("part", part)
    assert seen == [("row", True), (None, True), (3, True)]
    assert not stored(path)["finished"] and not stored(path)["passed"]


def test_a_part_that_fails_stops_no_other(tmp_path, monkeypatch):
    def fails(made):
        yield Measured("before", 1.0)
        raise TypeError("of this kind\n  only")

    def works(made):
        yield Measured("after", 1.0)

    monkeypatch.setattr(run, "PARTS", {"first": fails, "second": works})
    path = tmp_path / "a.json"
    result = run.run(command(), {"device": "d"}, path, float("inf"))
    assert [row["name"] for row in result["rows"]] == ["before", "after"] and not result["passed"]
    assert result["errors"] == {"first": {"type": "TypeError", "message": "TypeError: of this kind only"}}
    assert result == stored(path) and result["finished"]


def test_after_the_deadline_nothing_new_begins(tmp_path, monkeypatch):
    seconds = iter(range(100))
    monkeypatch.setattr(ledger, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    found = Ledger({}, tmp_path / "a.json", ends=6)

    def part():
        for number in range(20):
            yield Measured(f"row {number}", 1.0)

    assert found.run("long", part) and found.run("next", lambda: pytest.fail("it began"))
    found.finish()
    result = stored(tmp_path / "a.json")
    assert 0 < len(result["rows"]) < 6 and list(result["skipped"]) == ["long", "next"]
    assert "before it began" in result["skipped"]["next"] and result["passed"]


def test_parts_are_chosen_by_name():
    names = run.chosen(command())
    assert names[0] == "checks" and names[-1] == "sustained", "without a file there is no profile"
    assert run.chosen(command(profile="p"))[-1] == "profile"
    assert run.chosen(command(parts=["frames", "checks"])) == ["checks", "frames"]
    assert not {"encoder", "chunks", "first_audio", "sustained"} & set(run.chosen(command(no_sound=True)))
    with pytest.raises(ValueError, match="--parts: speed: not among checks, recorded"):
        run.chosen(command(parts=["speed"]))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("NVIDIA H200", "H200"), ("NVIDIA H200 NVL", "H200 NVL"), ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"), ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB"), ("NVIDIA A100-PCIE-40GB", "A100"), ("NVIDIA GH200 480GB", None),
        ("NVIDIA H200 MIG 1g.18gb", None), ("NVIDIA L4", None),
    ],
)  # fmt: skip
def test_a_device_is_measured_against_its_own_figures(name, part):
    floor = Floor.of(name, 7.0, on_gpu=True)
    assert floor.copy_bandwidth == 7.0
    if part is None:
        assert floor == Floor(7.0, "measured by a copy", None, 7.0)
    else:
        assert floor.source == f"maker's figure for {part}" and floor.bandwidth > 1e12 and floor.peak_flops > 1e14
        assert (part, floor.bandwidth, floor.peak_flops) == maker_figures(name)


def test_the_floor_is_the_larger_of_bytes_and_arithmetic():
    row = Measured("prefill", ms=40.0, floor_bytes=10**9, floor_flops=2 * 10**12)
    known = record(row, Floor(1e12, "a", peak_flops=1e14, copy_bandwidth=5e11))
    assert (known["floor_ms"], known["bound"]) == (pytest.approx(20.0), "arithmetic")
    assert known["floor_percent"] == pytest.approx(50.0) and known["copy_percent"] == pytest.approx(5.0)
    unknown = record(row, Floor(1e12, "a"))
    assert (unknown["floor_ms"], unknown["bound"], unknown["copy_percent"]) == (pytest.approx(1.0), "bytes", None)
    assert record(Measured("a", 1.0), None)["floor_percent"] is None


def test_arithmetic_of_a_prompt(bench):
    """Counted by hand at 3 positions: tiny backbone of 2 layers, speech head of 2 whose last gives keys only."""
    backbone = 64 * (4 + 2 + 2) * 32 + 4 * 32 * 64 + 3 * 64 * 96  # qkv, out, gate and up and down
    qkv, rest = 48 * (4 + 2 + 2) * 16, 4 * 16 * 48 + 3 * 48 * 64
    products = 3 * 2 * backbone + 15 * (qkv + rest) + 3 * 64 * 5 * 64 + 15 * (64 * 48 + qkv)
    attention = 2 * (4 * 32 * 2 * (1 + 2 + 3)) + 2 * (4 * 16 * 1 * (15 * 16 // 2))
    assert bench.counts.prefill_flops(3) == 2 * (products + attention)


def test_frames_and_their_baseline_have_the_same_mean_length(bench, clock, monkeypatch):
    lengths, positions = [], []

    class Naive(NaiveFrames):
        def __init__(self, steps, rows, length):
            lengths.append((rows, length))
            super().__init__(steps, rows, length)

    step = bench.loop().step
    monkeypatch.setattr(language_rows, "NaiveFrames", Naive)
    monkeypatch.setattr(bench.loop(), "step", lambda: positions.append(running_position(bench)) or step())
    rows = list(language_rows.frame_rows(bench, clock, naive=3))
    assert [row.name for row in rows] == ["frame, 1 streams", "frame, 3 streams"] and all(r.naive_ms for r in rows)
    for row, (count, length), expected in zip(rows, lengths, (1, 3), strict=True):
        assert count == expected and row.note == f"{length} positions on the average"
        assert tiny().question < length < tiny().question + tiny().context
    assert any(abs(length - position) <= 2 for _, length in lengths for position in positions if position)


def running_position(bench):
    running = bench.loop().scheduler.running
    return sum(stream.position for stream in running) / len(running) if running else None


def test_a_baseline_without_room_costs_only_its_own_number(bench, clock, monkeypatch):
    def no_room(*args):
        raise torch.cuda.OutOfMemoryError("full")

    monkeypatch.setattr(language_rows, "NaiveFrames", no_room)
    rows = list(language_rows.frame_rows(bench, clock, naive=1))
    assert len(rows) == 2 and rows[0].naive_ms is None and rows[0].note.endswith("no memory for the baseline")


def test_a_timing_in_which_answers_end_is_no_row(bench, clock, monkeypatch):
    monkeypatch.setattr(language_rows, "_runs_left", lambda bench, loop: 1)
    monkeypatch.setattr(clock, "ms", lambda work, *_: [work() for _ in range(tiny().context + 2)])
    with pytest.raises(RuntimeError, match="0 of 1 streams were left"):
        next(language_rows.frame_rows(bench, clock, naive=0))


def test_fused_rows_are_of_fresh_recordings_with_the_option_on(bench, clock, monkeypatch):
    stacks = bench.steps.backbone_stack.stack, bench.steps.speech_stack.stack
    seen = []
    parts = language_rows._parts
    monkeypatch.setattr(
        language_rows,
        "_parts",
        lambda bench, frames, count: seen.append((frames, [s._fused for s in stacks])) or parts(bench, frames, count),
    )
    names = [row.name for row in language_rows.fused_rows(bench, clock)]
    assert len(names) == 8 and names[0] == "fused off: backbone step, 1 streams"
    assert names[-1] == "fused on: speech group, 3 streams"
    assert [flags for _, flags in seen] == [[False] * 2] * 2 + [[True] * 2] * 2
    assert seen[0][0] is bench.frames() and seen[2][0] is not bench.frames()
    with pytest.raises(KeyError), bench.fused(True):
        raise KeyError
    assert not any(stack._fused for stack in stacks), "put back after an error too"


def test_a_part_that_failed_leaves_nothing_in_the_loop(bench):
    language_rows.speaking(bench, 2)
    bench.loop().add(bench.stream(9, 20, 4))
    bench.clear()
    scheduler = bench.loop().scheduler
    assert not scheduler.live and not scheduler.waiting and scheduler.free[0] == bench.options.max_streams


def test_what_cannot_be_built_is_not_tried_again():
    tries = []

    def make():
        tries.append(1)
        raise MemoryError("no room")

    once = lab.Once("language", make)
    with pytest.raises(MemoryError):
        once.get()
    with pytest.raises(RuntimeError, match=r"language: could not be built \(MemoryError: no room\)"):
        once.get()
    assert len(tries) == 1


def test_sound_has_an_executor_of_its_own_and_the_memory_that_others_left(monkeypatch):
    order = []
    made = SimpleNamespace(prepare=lambda: order.append("sound"))
    language = SimpleNamespace(executor=EagerExecutor(), loop=lambda: order.append("language"), clear=lambda: None)
    monkeypatch.setattr(lab, "LanguageBench", lambda *args: language)
    monkeypatch.setattr(lab, "SoundBench", lambda sizes, side, executor, *rest: order.append(executor) or made)
    monkeypatch.setattr(lab, "streams_that_fit", lambda *args: order.append("fit") or 5)
    monkeypatch.setattr(lab.Lab, "free", lambda self: order.append("free"))
    built = lab.Lab(command(), tiny())
    assert built.sound is made and built.sound_streams == 5
    executor = order.pop(3)
    assert order == ["language", "free", "fit", "sound"] and executor is not language.executor


def test_the_first_count_with_an_underrun_is_the_last(monkeypatch):
    class Ran:
        def __init__(self, *args):
            self.listeners = {}

        def run(self, prompts, paced):
            self.listeners = {key: SimpleNamespace(underruns=int(len(prompts) >= 64)) for key, _ in enumerate(prompts)}

    monkeypatch.setattr(answers, "Answers", Ran)
    language = SimpleNamespace(sizes=full(), stream=lambda *args: None)
    found = list(answers.sustained(language, None, full().sustained, (15,), 75))
    assert found == [(32, 0), (64, 64)]


def test_the_baseline_says_whose_matrices_it_has():
    assert "same dense" in baseline("dense") and "our int8 matrices" in baseline("int8")


def test_dead_streams_are_no_success():
    """Where all numbers are lost, nothing differs, nothing runs dry, and all of it is fast."""
    torch.manual_seed(0)
    dead = LanguageBench(tiny(), EagerExecutor(), twin_ops(), torch.float32, "dense", False)
    assert language_rows.same_frames(dead, EagerExecutor(), 2, 2)[0]
    dead.weights["language_model.lm_head.weight"].fill_(torch.nan)
    assert not language_rows.same_frames(dead, EagerExecutor(), 2, 2)[0]
    sound = SimpleNamespace(release=lambda streams: None)
    with pytest.raises(EngineFault, match="not finite"):
        answers.Answers(dead, sound, (15,)).run([dead.stream(0, dead.sizes.question, 4)], paced=False)
