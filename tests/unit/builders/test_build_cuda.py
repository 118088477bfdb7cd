"""Target cuda as far as it can be built and refused without a GPU."""

from dataclasses import replace

import pytest
import torch

from builders.options import cuda_engine, placement_of, portable_options
from builders.render import render_repository
from builders.request import BuildRequest
from builders.tiny_chat import TINY, TINY_EXPERTS, write_tiny_chat
from runtime.engines.options import CUDA, EngineOptions
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.build import build_loop
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.stacks import ConsumedWeights, matrix_for
from runtime.graphs import device
from runtime.opening import open_flow
from runtime.options import Options
from runtime.token2wav.options import Token2WavOptions

needs_no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.fixture(params=[TINY, TINY_EXPERTS], ids=["dense", "experts"])
def rendered(request, tmp_path):
    write_tiny_chat(tmp_path / "chat", sizes=request.param)
    config = ModelConfig.read(tmp_path / "chat")
    request = BuildRequest(CUDA, tmp_path, linear="int8")
    portable_options(request, config, tmp_path / "voice").write()
    render_repository(tmp_path, placement_of(request))
    return tmp_path, config


def test_options_and_placement(rendered):
    folder, _ = rendered
    options = Options.read(folder)
    assert options.target == "cuda" and options.engine == cuda_engine("int8")
    assert options.engine.device == "cuda" and options.engine.dtype == "bfloat16"
    assert options.cosyvoice == "voice" and options.model == "chat", "inside the folder, which may be moved"
    assert options.token2wav.precision == "float16" and options.token2wav.max_streams > options.engine.max_streams
    for model, place in (("fun_audio_chat", "KIND_GPU"), ("flow", "KIND_GPU"), ("log_mel", "KIND_CPU")):
        assert place in (folder / "model_repository" / model / "config.pbtxt").read_text()


@needs_no_gpu
def test_without_a_gpu_the_server_says_so(rendered):
    folder, config = rendered
    options = Options.read(folder)
    for start in (lambda: build_loop(config, options.engine), lambda: open_flow(options, 0)):
        with pytest.raises(BuildError, match=r"torch finds no GPU here; .*run make build-engines TARGET=cpu"):
            start()


def test_what_is_refused(tmp_path):
    with pytest.raises(BuildError, match="'int8' on target cpu"):
        BuildRequest("cpu", tmp_path, linear="int8")
    with pytest.raises(BuildError, match="'int4' on target cuda"):
        BuildRequest(CUDA, tmp_path, linear="int4")
    with pytest.raises(BuildError, match="target cuda has no profiles"):
        BuildRequest(CUDA, tmp_path, profile="h100-bf16")
    with pytest.raises(ValueError, match="needs device cuda"):
        EngineOptions(linear="fp8")
    with pytest.raises(ValueError, match="device: 'tpu' is not one of"):
        EngineOptions(device="tpu")
    with pytest.raises(ValueError, match="engine: 'tensorflow' is not one of auto, onnx, torch"):
        Token2WavOptions(engine="tensorflow")


def test_fp8_on_an_older_gpu_is_refused(monkeypatch):
    found = (8, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: found)
    with pytest.raises(BuildError, match=r"engine.linear: is fp8, which this GPU of compute capability 8\.0 has no"):
        matrix_for("fp8", torch.device("cuda"))
    assert matrix_for("int8", torch.device("cuda"))
    found = (9, 0)
    assert matrix_for("fp8", torch.device("cuda"))


def test_a_gpu_without_triton_is_refused(monkeypatch):
    def absent():
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(device, "kernel_ops", absent)
    with pytest.raises(BuildError, match=r"triton: cannot be imported .*; install triton >= 3.5"):
        device.ops_for(torch.device("cuda"))
    assert device.ops_for(torch.device("cpu")), "where nothing is missing"


def test_a_stack_takes_its_layers_and_leaves_the_rest():
    """Else a GPU would hold q, k, v, gate and up twice while it loads: 9 GB of the released backbone."""
    weights = {"a.layers.0.x.weight": torch.ones(1), "embed.weight": torch.ones(2)}
    given = ConsumedWeights(weights)
    assert len(given["embed.weight"]) == 2 and len(given["a.layers.0.x.weight"]) == 1
    assert list(weights) == list(given) == ["embed.weight"]
    with pytest.raises(KeyError):
        given["a.layers.0.x.weight"]


def test_engines_are_a_choice_of_this_target_only(rendered):
    folder, _ = rendered
    options = Options.read(folder)
    assert options.encoder.engine == options.token2wav.engine == "auto"
    replace(options, encoder=replace(options.encoder, engine="onnx")).write()
    assert Options.read(folder).encoder.engine == "onnx"
    forced = replace(options.token2wav, engine="torch")
    with pytest.raises(ValueError, match=r"token2wav.engine: 'torch' is a choice of target cuda only; use auto"):
        replace(options, target="cpu", token2wav=forced)
