"""The builder end to end against a double of the library that enforces the recorded interfaces."""

import json
import re
from types import SimpleNamespace

import library_double
import network_double
import numpy as np
import pytest
import recorded
import torch
from trace_double import ContractViolation, Trace

import builders.tensorrt.convert_config as convert_config
from builders.__main__ import main
from builders.build import build
from builders.request import BuildRequest
from builders.settings import Settings
from builders.sound_sizes import sizes_of
from builders.tensorrt import precision
from builders.tensorrt.profiles import PROFILES
from builders.tensorrt.toolchain import IMAGE, Toolchain, find_toolchain
from builders.voices import read_voices
from runtime.engines.options import EngineOptions
from runtime.engines.trtllm.check import EngineMismatch
from runtime.engines.trtllm.files import TENSORRT_LLM, check_config
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.profiles import backbone_profile, speech_profile
from runtime.options import Options
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.layout import FRONT_GRAPH, STEP_GRAPHS, VOCODER_GRAPH, VOICES

GPU_BYTES = 80 << 30
GRAPHS = ["audio encoder", "token2wav"]
LANGUAGE = ["backbone checkpoint", "srh checkpoint", "backbone engine", "srh engine"]
STEPS = ["tiny checkpoints", "weights", *GRAPHS, *LANGUAGE]  # what is exported before what takes long
PLANS = ["audio_encoder.plan", "flow_front.plan", "flow_step.fp16.plan", "vocoder.plan"]
LATER = [*(f"plan {name}" for name in PLANS), "model repository"]


def machine(capability=(9, 0), language=True):
    return Toolchain(
        "1.2.1" if language else None, "10.14.1.48", "2.10.0", "Some GPU 80GB/PCIe", capability, GPU_BYTES, GPU_BYTES
    )


@pytest.fixture
def log(monkeypatch):
    monkeypatch.setattr("builders.build.find_toolchain", machine)
    for spare in ("SPARE_HOST", "SPARE_DISK"):  # what a real build needs, this one does not
        monkeypatch.setattr(f"builders.tensorrt.preflight.{spare}", 0)
    # Graphs and their plans are built for real elsewhere (golden/test_plans.py); here they only take their places.
    monkeypatch.setattr("builders.build.export_encoder", lambda config, path: [write(path)])
    monkeypatch.setattr("builders.build.export_token2wav", export_nothing)
    monkeypatch.setattr("builders.tensorrt.plans.compile_plan", lambda spec, cache: [write(spec.out)])
    yield library_double.install(monkeypatch)
    Trace.current = None


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(path.name)
    return path


def export_nothing(cosyvoice, out, voices, say):
    """Graphs that hold nothing, and what a build opens beside them."""
    graphs = [write(out / name) for name in (FRONT_GRAPH, *STEP_GRAPHS.values(), VOCODER_GRAPH)]
    config = Token2WavConfig.read(cosyvoice)
    table = read_voices(cosyvoice, voices, config.flow.speaker_dim)
    np.savez(out / VOICES, names=np.array(list(table)), embeddings=torch.stack(list(table.values())).numpy())
    return [*graphs, out / VOICES, sizes_of(config, tuple(table)).write(out)]


def run(out, profile=None, apart=False):
    lines = []
    build(BuildRequest("tensorrt", out, profile=profile, token2wav_apart=apart), lines.append)
    return lines


def profiles(out, name):
    """What the runtime will ask of the engines that were built."""
    config, chosen = ModelConfig.read(out / "tiny" / "fun_audio_chat"), PROFILES[name]
    options = EngineOptions(
        max_streams=chosen.max_streams,
        max_positions=chosen.max_positions,
        kv_positions=chosen.max_positions,
        prefill_chunk=chosen.prefill_chunk,
        tokens_per_block=chosen.tokens_per_block,
        dtype="bfloat16",
    )
    return {"backbone": backbone_profile(config, options), "srh": speech_profile(config, options)}


def described(spec):
    return {"dtype": spec.dtype, "dims": [[d.name, d.minimum, d.optimum, d.maximum] for d in spec.dims]}


POOL_AXES = ("num_kv_cache_pools", "num_pools_layers")


@pytest.mark.parametrize("name", list(PROFILES))
def test_built_engines_are_what_the_runtime_fills(log, monkeypatch, tmp_path, name):
    monkeypatch.setattr("builders.build.find_toolchain", lambda: machine(PROFILES[name].capability))
    run(tmp_path, name)
    for engine, profile in profiles(tmp_path, name).items():
        found = json.loads((tmp_path / "engines" / engine / "rank0.engine").read_text())
        expected = {spec.name: described(spec) for spec in profile.inputs}
        assert sorted(found["inputs"]) == sorted(expected)
        for tensor, values in found["inputs"].items():
            for dim in values["dims"]:
                if dim[0] in POOL_AXES:  # the library allows more pools than the one that we have
                    assert dim[1:3] == [1, 1]
                    dim[3] = 1
            assert values == expected[tensor], tensor
        outputs = {
            spec.name: {"dtype": spec.dtype, "axes": [d.minimum if d.is_static else d.name for d in spec.dims]}
            for spec in profile.outputs
        }
        assert found["outputs"] == outputs
        config = json.loads((tmp_path / "engines" / engine / "config.json").read_text())
        assert config["build_config"]["max_input_len"] == profile.max_input_len
        assert config["pretrained_config"]["quantization"]["quant_algo"] == (
            "W8A16" if name.endswith("w8a16") else None
        )


def test_all_norms_have_the_checkpoints_epsilon_and_heads_their_size(log, tmp_path):
    run(tmp_path)
    config = ModelConfig.read(tmp_path / "tiny" / "fun_audio_chat")
    for model, decoder in zip(log.models, (config.backbone, config.speech_head), strict=True):
        modules = dict(model.named_modules())
        norms = {name: m.eps for name, m in modules.items() if isinstance(m, network_double.RmsNorm)}
        assert len(norms) == 4 * decoder.num_layers + 1 and set(norms.values()) == {decoder.rms_norm_eps}
        attentions = [m for m in modules.values() if isinstance(m, network_double.Attention)]
        assert [m.options["local_layer_idx"] for m in attentions] == list(range(decoder.num_layers))
        assert {m.options["attention_head_size"] for m in attentions} == {decoder.head_dim}
        assert {m.options["rotary_embedding_base"] for m in attentions} == {decoder.rope_theta}


def test_steps_manifest_capacity_and_timing_cache(log, tmp_path):
    lines = run(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert list(manifest["steps"]) == STEPS + LATER and manifest["target"] == "tensorrt"
    assert manifest["gpu"] == "Some GPU 80GB/PCIe" and manifest["versions"]["tensorrt_llm"] == "1.2.1"
    assert any(line.startswith("h100-bf16 on Some GPU") for line in lines)
    assert any(re.fullmatch(r" +4096 +13\.7 +\d+.*", line) for line in lines)
    first, second = log.builds
    assert first.input_timing_cache is None
    assert second.input_timing_cache == second.output_timing_cache == first.output_timing_cache
    assert first.output_timing_cache.endswith("timing/Some_GPU_80GB_PCIe-10.14.1.48.cache")
    assert first.plugin_config.use_paged_context_fmha and first.plugin_config.gemm_plugin == "auto"


def test_an_interrupted_build_goes_on_where_it_stopped(log, tmp_path):
    log.fail_at = 1
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    log.fail_at = -1
    again = run(tmp_path)
    assert [line for line in again if line.endswith("unchanged")] == [f"{name}: unchanged" for name in STEPS[:-1]]
    assert len(log.builds) == 3
    steps = [line for line in run(tmp_path) if "unchanged" in line or "building" in line]
    assert steps == [f"{name}: unchanged" for name in STEPS + LATER]
    assert len(log.builds) == 3


def test_another_profile_or_gpu_builds_anew_and_keeps_the_checkpoints(log, monkeypatch, tmp_path):
    run(tmp_path, "h100-bf16")
    other = machine()
    object.__setattr__(other, "gpu", "Another GPU")
    monkeypatch.setattr("builders.build.find_toolchain", lambda: other)
    lines = run(tmp_path, "h100-bf16")
    assert [line for line in lines if line.endswith(": building")] == [
        "backbone engine: building",
        "srh engine: building",
        *(f"plan {name}: building" for name in PLANS),
    ]
    assert len(log.builds) == 4


@pytest.mark.parametrize(("apart", "window", "gpus"), [(False, 3, {"0"}), (True, 8, {"0", "1"})])
def test_the_rendered_folder_is_what_was_built(log, tmp_path, apart, window, gpus):
    lines = run(tmp_path, "h100-bf16", apart)
    options = Options.read(tmp_path)
    config = ModelConfig.read(options.path(options.model))
    assert options.target == "tensorrt" and options.token2wav.window == window
    assert options.token2wav.max_streams > options.engine.max_streams == PROFILES["h100-bf16"].max_streams
    for engine, profile in (("backbone", backbone_profile(config, options.engine)),):
        check_config(engine, tmp_path / "engines" / engine, profile)
    placed = "".join(path.read_text() for path in (tmp_path / "model_repository").rglob("config.pbtxt"))
    assert set(re.findall(r"gpus: \[ (\d) \]", placed)) == gpus
    [line] = [line for line in lines if line.startswith("token2wav: ") and "blocks of context" in line]
    assert f"x {window} blocks" in line and ("second GPU" in line) == apart
    for plan in PLANS:
        assert list(tmp_path.rglob(plan)), "where the runtime looks for it"


def test_caches_that_do_not_fit_on_their_gpu_are_refused_early(log, monkeypatch, tmp_path):
    monkeypatch.setattr("builders.tensorrt.sound.ENDING_STREAMS", 100_000)
    with pytest.raises(BuildError, match=r"GPU memory: token2wav needs .* GiB of its own, 76\.0 are usable; use"):
        run(tmp_path, "h100-bf16", apart=True)
    assert not (tmp_path / "engines").exists()


def test_sizes_that_the_library_lowered_are_refused(log, tmp_path):
    log.clip = {"max_seq_len": 100}
    with pytest.raises(EngineMismatch, match=r"max_seq_len: the engine was built with 100, the runtime needs 4096"):
        run(tmp_path)


def test_a_head_that_is_not_excluded_from_quantisation_does_not_load(log, monkeypatch, tmp_path):
    """The double is no rubber stamp: the trap that the exclusion avoids is one."""
    monkeypatch.setattr(precision, "EXCLUDED_FROM_WEIGHT_ONLY", ("*lm_head",))
    with pytest.raises(RuntimeError, match=r"output_matching\.per_channel_scale"):
        run(tmp_path, "h100-w8a16")


def test_a_checkpoint_of_another_architecture_or_with_defaults_does_not_load(log, monkeypatch, tmp_path):
    monkeypatch.setattr(convert_config, "ARCHITECTURE", "FunAudioChat")
    with pytest.raises(ContractViolation, match="FunAudioChat"):
        run(tmp_path)


def test_the_double_refuses_calls_that_are_not_recorded(log):
    from tensorrt_llm.builder import BuildConfig, build
    from tensorrt_llm.layers import RmsNorm

    with pytest.raises(ContractViolation, match="keyword 'max_batch' is not recorded"):
        BuildConfig(max_batch=3)
    with pytest.raises(ContractViolation, match="'normalized_shape' is missing"):
        RmsNorm(eps=1e-6)
    with pytest.raises(ContractViolation, match="'build_config' is missing"):
        build(None)


def test_without_the_library_the_error_names_the_container(tmp_path):
    with pytest.raises(BuildError, match=r"tensorrt_llm: is not installed here; .*26\.04-trtllm-python-py3"):
        run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("profile", "capability", "message"),
    [
        ("h200-fp8", (9, 0), "'h200-fp8' is unknown; use one of h100-bf16, h100-w8a16, a100-bf16, a100-w8a16"),
        ("a100-bf16", (9, 0), r"a100-bf16 does not fit Some GPU .*compute 9\.0.*takes h100-bf16, h100-w8a16"),
        (None, (8, 9), r"none does not fit .* the profiles are for A100 and H100"),
    ],
)
def test_profiles_that_do_not_fit_are_refused_early(log, monkeypatch, tmp_path, profile, capability, message):
    monkeypatch.setattr("builders.build.find_toolchain", lambda: machine(capability))
    with pytest.raises(BuildError, match=message):
        run(tmp_path / "out", profile)
    assert not (tmp_path / "out").exists()


def test_the_command_says_it_in_one_line(capsys, tmp_path):
    assert main(["build", "--target", "tensorrt", "--out", str(tmp_path / "out"), "--profile", "h100-bf16"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("INTERNAL: tensorrt_llm: is not installed here; run make")


def test_pins_are_the_recorded_ones():
    versions = recorded.load().raw["versions"]
    assert versions["tensorrt_llm"] == TENSORRT_LLM
    assert versions["triton_images"][0].endswith("/" + IMAGE)


def test_a_machine_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("builders.tensorrt.toolchain.find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BuildError, match=r"GPU: none is visible; start the container .* with --gpus all"):
        find_toolchain()


def test_versions_and_gpu_are_found(log, monkeypatch):
    monkeypatch.setattr("builders.tensorrt.toolchain.find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (60 << 30, GPU_BYTES))
    properties = SimpleNamespace(name="NVIDIA A100", major=8, minor=0)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    found = find_toolchain()
    assert (found.tensorrt_llm, found.tensorrt) == ("1.2.1", "10.14.1.48")
    assert (found.gpu, found.capability, found.gpu_bytes, found.gpu_free_bytes) == (
        "NVIDIA A100",
        (8, 0),
        GPU_BYTES,
        60 << 30,
    )


def test_another_version_of_the_library_is_refused():
    with pytest.raises(BuildError, match=r"is version 1\.3\.0, not 1\.2\.1; run .* inside the container"):
        Toolchain("1.3.0", "10.14", "2.10", "GPU", (9, 0), GPU_BYTES, GPU_BYTES)


def test_weight_only_layers_have_a_plugin_of_their_own(log, tmp_path):
    run(tmp_path, "h100-w8a16")
    assert [config.plugin_config.gemm_plugin for config in log.builds] == [None, None]


def test_float32_is_no_precision_of_an_engine(log, tmp_path):
    from builders.tensorrt.compile import compile_engine

    with pytest.raises(BuildError, match="precision: f32 is for checkpoints alone; use one of bf16, w8a16"):
        compile_engine(tmp_path, None, precision.Precision.named("f32"), tmp_path, tmp_path / "times")


def test_plans_are_built_beside_the_language_engines_of_cuda(monkeypatch, log, tmp_path):
    """Without TensorRT-LLM, by any TensorRT."""
    monkeypatch.setattr("builders.build.find_toolchain", lambda language: machine(language=language))
    monkeypatch.setattr("builders.build.sound_capacity", lambda options: "")
    lines = []
    build(BuildRequest("cuda", tmp_path, sound="tensorrt"), lines.append)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    plans = [f"plan {name}" for name in PLANS]
    assert list(manifest["steps"]) == ["tiny checkpoints", "weights", *GRAPHS, *plans, "model repository"]
    assert "tensorrt_llm" not in manifest["versions"] and manifest["versions"]["tensorrt"] == "10.14.1.48"
    assert manifest["gpu"] == machine().gpu and not log.builds
    options = Options.read(tmp_path)
    assert (options.target, options.sound_engine, options.engine.device) == ("cuda", "tensorrt", "cuda")
    build(BuildRequest("cuda", tmp_path), lines.append)
    assert Options.read(tmp_path).sound_engine == "torch"


def test_torch_may_sound_beside_compiled_language_engines(log, tmp_path):
    build(BuildRequest("tensorrt", tmp_path, sound="torch"), lambda line: None)
    options = Options.read(tmp_path)
    assert (options.target, options.sound_engine) == ("tensorrt", "torch") and len(log.builds) == 2
    assert options.path(options.cosyvoice).is_dir() and not list(tmp_path.rglob("*.plan"))


def test_graphs_are_the_one_option_of_compiled_engines(log, tmp_path):
    settings = Settings.read(["engine.graphs=8"])
    build(BuildRequest("tensorrt", tmp_path, settings=settings), lambda line: None)
    assert Options.read(tmp_path).engine.graphs == 8


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.13.2.6", False), ("10.14.1.48", True), ("10.16.0", True), ("11.4.0.106", True), ("12.0.0", False)],
)
def test_plans_take_tensorrt_from_10_14_to_11(version, fits):
    if fits:
        assert Toolchain(None, version, "2.13", "GPU", (9, 0), GPU_BYTES, GPU_BYTES).versions["tensorrt"] == version
        return
    with pytest.raises(BuildError, match=rf"tensorrt: is version {re.escape(version)}, plans are for 10\.14 to 11;"):
        Toolchain(None, version, "2.13", "GPU", (9, 0), GPU_BYTES, GPU_BYTES)


@pytest.mark.parametrize(
    ("target", "sound", "message"),
    [
        ("cpu", "tensorrt", "sound: 'tensorrt' on target cpu, which takes onnx; leave it out"),
        ("cuda", "onnx", "sound: 'onnx' on target cuda, which takes torch or tensorrt"),
        ("tensorrt", "fast", "sound: 'fast' on target tensorrt, which takes tensorrt or torch"),
    ],
)
def test_a_sound_that_the_target_does_not_have_is_refused(target, sound, message, tmp_path):
    with pytest.raises(BuildError, match=message):
        BuildRequest(target, tmp_path, sound=sound)


def test_without_tensorrt_the_error_names_both_ways(tmp_path):
    with pytest.raises(BuildError, match=r"tensorrt: is not installed here; install .* or build with --sound torch"):
        build(BuildRequest("cuda", tmp_path / "out", sound="tensorrt"), print)
    assert not (tmp_path / "out").exists()
