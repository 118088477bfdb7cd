"""Which stages each target opens, and what is said where they cannot run."""

from dataclasses import replace

import pytest
import torch

from builders.sound_sizes import sizes_of
from builders.tiny_cosyvoice import write_tiny_cosyvoice
from runtime.checkpoint.features import FeatureConfig
from runtime.engines.options import CUDA
from runtime.errors import BuildError
from runtime.frontend.options import EncoderOptions
from runtime.graphs.options import TENSORRT
from runtime.opening import open_encoder, open_flow, open_vocoder
from runtime.options import Options
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.options import Token2WavOptions

FEATURES = FeatureConfig(sample_rate=16000, num_mel_bins=128, n_fft=400, hop_length=160, n_samples=480_000)
ENCODER = EncoderOptions(graph="encoder.onnx", frames=200, groups=10, group_size=5, hidden=8)


@pytest.fixture
def options(tmp_path):
    """Of a folder that holds no graphs and no plans."""
    write_tiny_cosyvoice(tmp_path / "voice")
    (tmp_path / "token2wav").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "funaudiochat"}')
    sizes_of(Token2WavConfig.read(tmp_path / "voice"), ("a",)).write(tmp_path / "token2wav")
    return lambda target: Options(tmp_path, "model", FEATURES, ENCODER, target=target, cosyvoice="voice")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("open_stage", [open_flow, open_vocoder, open_encoder])
def test_without_a_gpu_the_cuda_target_says_so(options, open_stage):
    with pytest.raises(BuildError, match=r"GPU 1: torch finds no GPU here; .* make build-engines TARGET=cpu"):
        open_stage(options(CUDA), 1)


@pytest.mark.parametrize(
    ("open_stage", "missing"),
    [(open_flow, "flow_front.plan"), (open_vocoder, "vocoder.plan"), (open_encoder, "encoder.plan")],
)
def test_missing_plans_are_named(options, open_stage, missing):
    with pytest.raises(BuildError, match=rf"{missing}: not found in .*; run make build-engines TARGET=tensorrt"):
        open_stage(options(TENSORRT), 0)


@pytest.mark.parametrize(
    ("open_stage", "missing"),
    [(open_flow, "flow_front.onnx"), (open_vocoder, "vocoder.onnx"), (open_encoder, "encoder.onnx")],
)
def test_missing_graphs_are_named(options, open_stage, missing):
    with pytest.raises(BuildError, match=rf"{missing}: not found in .*; run make build-engines"):
        open_stage(options("cpu"))


@pytest.mark.parametrize("target", [CUDA, TENSORRT])
def test_full_attention_has_no_bounded_shapes(tmp_path, target):
    sound = Token2WavOptions(full_attention=True)
    with pytest.raises(ValueError, match=r"token2wav\.full_attention: .* use cpu"):
        Options(tmp_path, "model", FEATURES, ENCODER, token2wav=sound, target=target)


@pytest.mark.parametrize(
    ("open_stage", "missing"),
    [(open_flow, "flow_front.plan"), (open_vocoder, "vocoder.plan"), (open_encoder, "encoder.plan")],
)
def test_plans_are_opened_beside_the_language_engines_of_cuda(options, open_stage, missing):
    with pytest.raises(BuildError, match=rf"{missing}: not found in"):
        open_stage(replace(options(CUDA), sound=TENSORRT), 0)


def test_a_sound_is_one_of_the_target_and_has_the_choices_of_its_own(options):
    with pytest.raises(ValueError, match=r"sound: 'tensorrt' on target cpu, which takes onnx"):
        replace(options("cpu"), sound=TENSORRT)
    forced = replace(ENCODER, engine="onnx")
    assert replace(options(TENSORRT), sound="torch", encoder=forced).sound_engine == "torch"
    with pytest.raises(ValueError, match=r"encoder\.engine: 'onnx' is a choice of sound torch only; use auto"):
        replace(options(CUDA), sound=TENSORRT, encoder=forced)


def test_a_checkpoint_of_no_family_is_refused_with_those_that_there_are(options, tmp_path):
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(BuildError, match=r"config\.json: has model_type 'llama'; .* can be served: funaudiochat"):
        open_encoder(options("cpu"))
