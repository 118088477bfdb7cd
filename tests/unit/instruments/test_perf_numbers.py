"""From responses to outcomes, levels, tables and plots; perf_analyzer's export; what is sent when."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import time

import numpy as np
import pytest

from benchmarks.perf import cli, load, report
from benchmarks.perf.analyzer import Point, parameter_option
from benchmarks.perf.clips import LENGTHS_S, load_clips, write_input_data
from benchmarks.perf.level import failed_level, level, percentiles
from benchmarks.perf.load import LoadSpec, jobs
from benchmarks.perf.outcome import Arrival, outcome_of
from benchmarks.perf.profile import TruncatedExport, read_export
from benchmarks.perf.run import add_level, document
from benchmarks.record import save
from client import ChatError
from client.chunks import Chunk
from client.parameters import parameter_set
from runtime.playback import Playback

RATE = 24_000


def spoken(first_s=0.1, gap_s=0.2, sent_s=0.0):
    arrivals = [Arrival(0.05, True, 0), Arrival(first_s, False, RATE // 2), Arrival(first_s + gap_s, True, RATE)]
    return outcome_of("s2s", arrivals, sent_s=sent_s)


def test_a_listener_without_a_buffer():
    ear = Playback(RATE)
    assert ear.play(10.0, RATE) == 0  # plays until 11
    assert ear.play(10.5, RATE) == 0  # until 12
    assert ear.play(12.25, RATE) == 0.25  # until 13.25: the pause moved the end
    assert ear.play(13.2, 0) == 0
    assert ear.play(13.2, RATE) == 0
    assert (ear.silences, ear.silence_s, ear.dry_at) == (1, 0.25, 14.25)


def test_an_outcome_has_the_times_of_its_pieces():
    outcome = spoken(0.1, 0.75)
    assert (outcome.first_text_ms, outcome.first_audio_ms, outcome.total_ms) == (50, 100, 850)
    assert outcome.gaps_ms == (750,) and outcome.audio_s == 1.5
    assert outcome.silences_ms == pytest.approx((250,))
    assert outcome.real_time_factor == pytest.approx(0.85 / 1.5)
    texts = outcome_of("s2t", [Arrival(0.1, True, 0), Arrival(0.3, True, 0)])
    assert texts.gaps_ms == () and texts.first_audio_ms is None, "gaps are those that a listener could hear"
    assert outcome_of("s2s", [Arrival(0.1, False, 9)], cancelled=True).total_ms is None


def test_a_level_counts_errors_and_cancels_apart():
    outcomes = [spoken(sent_s=0), spoken(sent_s=1), outcome_of("s2s", [], "UNAVAILABLE: server"),
                outcome_of("s2s", [Arrival(0.2, False, 5)], cancelled=True, sent_s=2)]  # fmt: skip
    made = level("concurrency", 2, outcomes, 4.0, {"seed": 1})
    assert (made["requests"], made["errors"], made["cancelled"]) == (4, 1, 1)
    assert made["throughput_per_s"] == 0.5 and made["error_kinds"] == {"UNAVAILABLE: server": 1}
    assert set(made["first_audio_ms"]) == {"p50", "p90", "p95", "p99"}
    assert made["underruns"]["listeners"] == 3
    assert percentiles([None])["p50"] is None
    assert failed_level("concurrency", 2, 7, "boom", {})["errors"] == 7


def export(requests):
    return {"experiments": [{"experiment": {"mode": "concurrency", "value": 1}, "requests": requests}]}


def test_an_export_of_perf_analyzer(tmp_path):
    """Lists are tensors of several elements; an empty tensor is a scalar with garbage in it."""
    responses = [
        {"text": "", "audio": -4.5e34, "finish_reason": "", "text_token_ids": 3, "speech_token_ids": [1, 2, 3, 4, 5]},
        {"text": "hi", "audio": 0.0, "finish_reason": "", "text_token_ids": 3, "speech_token_ids": 0},
        {"text": "", "audio": [0.5] * 2400, "finish_reason": "stop", "text_token_ids": 3, "speech_token_ids": 0},
    ]
    request = {"timestamp": 10**9, "request_inputs": {"audio": [0.1, 0.2]}, "response_outputs": responses,
               "response_timestamps": [10**9 + n * 10**7 for n in (1, 2, 3)]}  # fmt: skip
    lost = {"timestamp": 10**9, "request_inputs": {}, "response_outputs": [], "response_timestamps": []}
    path = tmp_path / "export.json"
    path.write_text(json.dumps(export([request, lost]), separators=(",", ":")))
    (outcome, failed), seconds = read_export(path, "s2s")
    assert (outcome.first_text_ms, outcome.first_audio_ms, outcome.total_ms) == pytest.approx((20, 30, 30))
    assert outcome.audio_s == 0.1 and failed.error and seconds == pytest.approx(0.03)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TruncatedExport):
        read_export(path, "s2s")
    with pytest.raises(ChatError, match="no export"):
        read_export(tmp_path / "none.json", "s2s")


def test_what_perf_analyzer_is_told(tmp_path):
    assert parameter_option("top_p", 0.5) == "top_p:0.5:string"  # floats would be dropped without a word
    assert parameter_option("greedy", True) == "greedy:true:bool" and parameter_option("seed", 3) == "seed:3:int"
    assert Point("request_rate", 0.5).options()[1] == "0.5:0.5:1"
    assert Point("concurrency", 4.0).options() == ["--concurrency-range", "4"]
    with pytest.raises(ValueError, match="whole"):
        Point("concurrency", 1.5)
    clips = load_clips(None)
    assert [round(len(clip) / 16_000, 1) for clip in clips] == list(LENGTHS_S)
    write_input_data(clips, tmp_path / "in.json")
    steps = json.loads((tmp_path / "in.json").read_text())["data"]
    assert [step["audio"]["shape"] for step in steps] == [[len(clip)] for clip in clips]


def test_a_load_is_drawn_once_and_in_its_shares():
    spec = LoadSpec("request_rate", 20.0, 2000, s2t_share=0.25, cancel_share=0.1)
    drawn = jobs(spec)
    assert drawn == jobs(spec)
    assert abs(drawn[-1].due_s - 100) < 8
    assert abs(np.mean([job.mode == "s2t" for job in drawn]) - 0.25) < 0.03
    assert abs(np.mean([job.cancel_after_s is not None for job in drawn]) - 0.1) < 0.02
    assert "25% s2t" in spec.words() and "open loop" in spec.words()


@pytest.mark.parametrize("values", [{"kind": "x"}, {"value": 1.5}, {"requests": 0}, {"cancel_share": 2}])
def test_loads_are_checked(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        LoadSpec(**{"kind": "listeners", "value": 1.0, "requests": 1, **values})


class Talker:
    """In place of the client: two responses at once, then the end."""

    def __init__(self, *args, **kwargs):
        pass

    async def stream(self, clip, **parameters):
        for finish in ("", "stop"):
            yield Chunk("a", np.zeros(RATE // 10, np.float32), finish)

    async def close(self):
        pass


@pytest.mark.parametrize("spec", [LoadSpec("listeners", 2.0, 2, think_s=0.4), LoadSpec("request_rate", 4.0, 1)])
def test_the_time_of_a_load_is_from_its_first_request_to_its_last_response(monkeypatch, spec):
    monkeypatch.setattr(load, "AsyncChatClient", Talker)
    began = time.perf_counter()
    outcomes, seconds = asyncio.run(load.loaded("", [np.zeros(9, np.float32)], spec, {}))
    waited = time.perf_counter() - began
    assert [outcome.complete for outcome in outcomes] == [True] * spec.requests
    assert 0 < seconds < waited - 0.15


def test_parameters_keep_their_types():
    assert parameter_set("max_tokens=20, top_p=0.5,greedy=true,voice=anna") == {
        "max_tokens": 20, "top_p": 0.5, "greedy": True, "voice": "anna",
    }  # fmt: skip
    for wrong in ("seed", "=1", "seed=", "seed=,"):
        with pytest.raises(argparse.ArgumentTypeError, match="name=value"):
            parameter_set(wrong)


def test_a_part_without_a_name_goes_on_with_the_value():
    assert parameter_set("hops=15,10,25,seed=1,") == {"hops": "15,10,25", "seed": 1}
    assert parameter_set("system=a, b=c d, e,,f") == {"system": "a", "b": "c d, e,,f"}


@pytest.mark.parametrize("name", ["timeout", "text", "audio", "messages", "outputs", "self"])
def test_arguments_are_no_parameters(name):
    with pytest.raises(argparse.ArgumentTypeError, match=f"^{name} is no request parameter"):
        parameter_set(f"seed=1,{name}=2")


@pytest.fixture
def stored(tmp_path):
    """Two stored runs, the second of a server that takes twice as long."""
    paths = []
    for factor in (1, 2):
        run = document("load", "python -m benchmarks.perf load", "closed loop", load_clips(None), server="x", note="")
        for value in (1, 2):
            outcomes = [spoken(0.1 * factor, 0.7, n) for n in range(5)]
            made = level("concurrency", value, outcomes, 3.0, {"seed": 1}) | {"gpu_memory_bytes": 2**30}
            add_level(run, lambda made=made: made, "http://127.0.0.1:1/metrics")
            run["levels"][-1]["gpu_memory_bytes"] = 2**30
        paths.append(tmp_path / f"run{factor}.json")
        save(run, paths[-1])
    return paths


@pytest.mark.slow
def test_a_report_is_redrawn_from_json(stored, tmp_path):
    assert cli.main(["report", str(stored[0]), "--to", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / report.REPORT).read_text()
    pictures = {path.name for path in (tmp_path / "page").glob("*.png")}
    names = ("latency", "gaps", "real_time", "underruns", "gpu_memory")
    assert pictures == {f"run1_concurrency_{name}.png" for name in names}
    assert all(f"({name})" in page for name in pictures)
    assert "older definitions" not in page
    assert "100 / 100 / 100 / 100" in page and "GPU memory" in page


@pytest.mark.slow
def test_runs_of_one_tool_have_plots_of_their_own(stored, tmp_path):
    again = tmp_path / "again" / stored[0].name
    again.parent.mkdir()
    again.write_text(stored[0].read_text())
    assert cli.main(["report", *map(str, stored), str(again), "--to", str(tmp_path / "page")]) == 0
    sections = (tmp_path / "page" / report.REPORT).read_text().split("\n## ")[1:]
    assert [section.splitlines()[0] for section in sections] == ["load, run1", "load, run2", "load, run1-2"]
    shown = [set(re.findall(r"\((\S+\.png)\)", section)) for section in sections]
    assert [len(names) for names in shown] == [5, 5, 5] and len(set.union(*shown)) == 15
    assert set.union(*shown) == {path.name for path in (tmp_path / "page").glob("*.png")}


def test_a_report_of_nothing_is_one_line(tmp_path, capsys):
    assert cli.main(["report", "--to", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"NOT_FOUND: report: no stored run is named for {tmp_path}; store one")


def test_numbers_of_older_definitions_say_so(stored, tmp_path, capsys):
    older = json.loads(stored[0].read_text())
    del older["definitions"]
    stored[0].write_text(json.dumps(older))
    assert cli.main(["report", str(stored[0]), "--to", str(tmp_path)]) == 0
    assert "* measured by older definitions: gaps" in (tmp_path / report.REPORT).read_text()
    assert cli.main(["compare", *map(str, stored)]) == 0
    said = capsys.readouterr().out
    assert "before: measured by older" in said and "after: measured" not in said


def test_two_runs_are_compared_with_ratios(stored, capsys):
    assert cli.main(["compare", *map(str, stored)]) == 0
    assert "| concurrency 2 | first_audio_ms p50 | 100.00 | 200.00 | 2.00 |" in capsys.readouterr().out


def test_a_wrong_file_is_one_line(tmp_path, capsys):
    (tmp_path / "x.json").write_text("{}")
    assert cli.main(["report", str(tmp_path / "x.json"), "--to", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1
