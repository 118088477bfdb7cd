"""The parity command: the torch engine on both sides, compiled engines over their double, and what must fail."""

import json
from dataclasses import replace

import chat_data as data
import pytest
import torch
from device_double import LazyDevice
from rigs import golden_weights
from tensorrt_double import TensorRt, serialise, torch_compute

from builders.parity import engines
from builders.parity.__main__ import main
from builders.parity.cases import Piece
from builders.parity.play import Output
from builders.parity.report import BOUNDS, Bounds, compare, table
from builders.parity.traces import PROMPTS, prompt_lengths
from builders.tensorrt.convert_plan import backbone_plan, speech_plan
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm import files as trtllm_files
from runtime.engines.trtllm.engine import TrtLlmEngine
from runtime.families.fun_audio_chat.profiles import BACKBONE_ENGINE, SPEECH_ENGINE
from runtime.frontend.options import EncoderOptions
from runtime.graphs.tensorrt import Plan
from runtime.options import Options

pytestmark = pytest.mark.golden


@pytest.fixture
def built(tmp_path):
    """A built folder as far as the command reads it."""

    def write(**engine):
        config, encoder = data.config(), data.config().encoder
        Options(
            folder=tmp_path,
            model=str(config.directory),
            features=config.features,
            encoder=EncoderOptions(
                "none", encoder.window_frames, encoder.window_groups, encoder.group_size, config.backbone.hidden_size
            ),
            engine=EngineOptions(max_streams=4, max_positions=256, kv_positions=512, **engine),
        ).write()
        return ["--out", str(tmp_path), "--target"]

    return write


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def test_the_torch_engine_agrees_with_itself(built, capsys):
    assert main([*built(), "cpu"]) == 0
    out = capsys.readouterr().out
    found = last_json(out)
    assert found["passed"] and len(found["cases"]) == 10
    assert all(case["hidden_error"] == case["logits_error"] == 0.0 for case in found["cases"])
    assert out.count("  pass\n") == 10 and "blocks out of order" in out


def test_the_bf16_bounds_hold_for_bf16_and_are_not_idle(built, capsys):
    assert main([*built(dtype="bfloat16"), "cpu"]) == 0
    cases = last_json(capsys.readouterr().out)["cases"]
    worst = max(case["logits_error"] / case["logits_bound"] for case in cases)
    assert 0.02 < worst < 0.9
    assert max(case["hidden_error"] for case in cases) > 1e-3


class Compiled:
    """Loads doubles in place of compiled engines; ``spoil`` changes the torch engine that computes for one."""

    def __init__(self, folder, spoil=None):
        self._spoil, self.loaded = spoil, []
        self._write_config(folder)

    def _write_config(self, folder):
        for name in (BACKBONE_ENGINE, SPEECH_ENGINE):
            (folder / trtllm_files.ENGINES / name).mkdir(parents=True)
            config = {"pretrained_config": {"quantization": {"quant_algo": None}}}
            (folder / trtllm_files.ENGINES / name / trtllm_files.CONFIG_FILE).write_text(json.dumps(config))

    def load(self, name, folder, profile, device, graphs):
        self.loaded.append((name, folder.name, graphs))
        engine = engines.torch_engine(name, data.config(), profile, golden_weights())
        if self._spoil:
            self._spoil(engine)
        trt = TensorRt(device, torch_compute(engine))
        return TrtLlmEngine(name, profile, Plan(trt, name, serialise(profile), device.stream), device, graphs)


@pytest.fixture
def compiled(tmp_path, monkeypatch):
    def use(spoil=None):
        double = Compiled(tmp_path, spoil)
        monkeypatch.setattr(engines, "load_engine", double.load)
        monkeypatch.setattr(engines, "CudaDevice", LazyDevice)
        return double

    return use


@pytest.mark.parametrize("graphs", [0, 4])
def test_compiled_engines_pass_all_cases(built, compiled, capsys, graphs):
    double = compiled()
    assert main([*built(), "tensorrt", "--graphs", str(graphs)]) == 0
    found = last_json(capsys.readouterr().out)
    assert [case["hidden_error"] is None for case in found["cases"]] == [False] * 5 + [True] * 5
    assert double.loaded == [("backbone", "backbone", graphs), ("srh", "srh", graphs)]


def swap_gate_and_up(engine):
    """The classic mistake of a converter: it still builds and runs."""
    engine._layers = [replace(la, gate_up=torch.cat(la.gate_up.chunk(2)[::-1])) for la in engine._layers]


def forget_eps(engine):
    engine.config = replace(engine.config, rms_norm_eps=1e-2)


@pytest.mark.parametrize("spoil", [swap_gate_and_up, forget_eps])
def test_wrong_engines_fail_in_every_case(built, compiled, capsys, spoil):
    compiled(spoil)
    assert main([*built(), "tensorrt"]) == 1
    out = capsys.readouterr().out
    assert out.count("  FAIL\n") == 10 and not last_json(out)["passed"]


def test_engine_folders_have_the_builders_names():
    plans = backbone_plan(data.config()), speech_plan(data.config())
    assert [plan.name for plan in plans] == [BACKBONE_ENGINE, SPEECH_ENGINE]


def test_precision_comes_from_the_engine(tmp_path):
    folder = tmp_path / trtllm_files.ENGINES / "srh"
    folder.mkdir(parents=True)
    for algorithm, expected in (("W8A16", "w8a16"), (None, "bfloat16")):
        config = {"pretrained_config": {"quantization": {"quant_algo": algorithm}}}
        (folder / trtllm_files.CONFIG_FILE).write_text(json.dumps(config))
        profile = type("Profile", (), {"dtype": "bfloat16"})
        assert engines.precision_of(tmp_path, "srh", profile) == expected
        assert expected in BOUNDS


def test_what_does_not_suit_is_one_line(built, capsys, tmp_path):
    assert main(["--out", str(tmp_path / "nothing"), "--target", "cpu"]) == 1
    assert "make build-engines" in capsys.readouterr().err
    assert main([*built(), "cpu", "--reference-dtype", "int8"]) == 1
    assert "'int8'" in capsys.readouterr().err
    assert main([*built(prefill_chunk=16), "cpu"]) == 1
    assert "prefill_chunk" in capsys.readouterr().err


def test_prompts_shrink_with_the_chunk():
    assert prompt_lengths(512) == PROMPTS
    short = prompt_lengths(64)
    assert sum(sorted(short)[-2:]) <= 64 and all(a < b for a, b in zip(short, PROMPTS, strict=True))


def output(logits, hidden=None, begin=4):
    return Output(Piece(0, begin, 1), hidden, torch.tensor(logits))


@pytest.mark.parametrize(
    ("found", "passed"),
    [
        ([1.0, 0.5, -2.0], True),
        ([1.0, 0.55, -2.0], True),
        ([1.0, 0.75, -2.0], False),  # too far off
        ([0.4, 0.45, -1.9], False),
        ([float("nan"), 0.5, -2.0], False),
    ],
)
def test_verdict_on_logits(found, passed):
    finding = compare("e", "c", [output([1.0, 0.5, -2.0])], [output(found)], Bounds(0.1, 0.1))
    assert finding.passed is passed
    assert finding.logits_bound == pytest.approx(0.2)


def test_another_id_is_reported_and_excused_only_by_its_margin():
    near = compare("e", "c", [output([1.0, 0.99])], [output([0.99, 1.0])], Bounds(0.1, 0.1))
    assert near.passed and near.divergence.margin == pytest.approx(0.01)
    assert "trace 0 position 4: 1 for 0, margin 0.01" in table([near])
    far = compare("e", "c", [output([1.0, -1.0])], [output([0.95, 0.96])], Bounds(0.1, 0.99))
    assert far.divergence.margin == pytest.approx(2.0) and not replace(far, logits_bound=0.9).passed


def test_a_nan_in_hidden_states_fails():
    hidden = torch.ones(1, 3)
    good = compare("e", "c", [output([1.0], hidden)], [output([1.0], hidden)], Bounds(0.1, 0.1))
    bad = compare("e", "c", [output([1.0], hidden)], [output([1.0], hidden * torch.nan)], Bounds(0.1, 0.1))
    assert good.passed and not bad.passed
