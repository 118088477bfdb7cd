"""A build that would not be served is refused before its first step, in one line that names what is wrong."""

import errno
import json
import os
import random
import re
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import damage
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from builders.__main__ import main as builders_main
from builders.limits import check_limits, most_positions
from builders.opening import open_built, open_inputs
from builders.options import portable_options
from builders.render import render_repository
from builders.request import BuildRequest
from builders.settings import Settings
from builders.steps import Builder, prepare_folder, weights_step
from builders.tiny_chat import write_tiny_chat
from builders.tiny_cosyvoice import write_tiny_cosyvoice
from builders.tiny_text import CHAT_TEMPLATE as TEMPLATE
from runtime.checkpoint.weights import load_weights
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.prompt import SYSTEM_PROMPTS, PromptBuilder
from runtime.families.fun_audio_chat.tensors import all_shapes
from runtime.frontend.tokenizer import ChatTokenizer
from runtime.manifest import Manifest, verify
from runtime.requests.messages import single_turn

CHAT_FILES = ("config.json", "generation_config.json", "preprocessor_config.json", damage.INDEX)
ORIGINAL = "give the checkpoint in bfloat16"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    write_tiny_chat(folder / "chat")
    write_tiny_cosyvoice(folder / "voice")
    return folder


@pytest.fixture
def chat(made, tmp_path):
    return damage.copy_of(made / "chat", tmp_path / "chat")


@pytest.fixture
def voice(made, tmp_path):
    return damage.copy_of(made / "voice", tmp_path / "voice")


def refused(words, *folders, voices=None):
    with pytest.raises(BuildError) as caught:
        open_inputs(*folders, voices)
    line = str(caught.value)
    assert re.search(words, line) and len(line.splitlines()) == 1, line


def test_good_checkpoints_are_opened(made):
    assert open_inputs(made / "chat", made / "voice", None).notes == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage.scaled(torch.float8_e4m3fn, 448, "weight_scale"), r"proj\.weight: is stored as F8_E4M3 in model\.safe"),
        (damage.scaled(torch.float8_e5m2, 57344, "weight_scale_inv"), "is stored as F8_E5M2"),
        (damage.scaled(torch.float8_e4m3fnuz, 240, "input_scale"), "is stored as F8_E4M3FNUZ"),
        (damage.scaled(torch.int8, 127, "SCB"), "is stored as I8"),
        (damage.scaled(torch.uint8, 255, "absmax"), "is stored as U8"),
        (damage.scaled(torch.int64, 9, "scale"), "is stored as I64"),
        (damage.add(f"{damage.Q_PROJ}.weight_scale", torch.ones(1)), r"weight_scale: in .* quantized or partial"),
        (damage.add(f"{damage.Q_PROJ}.weight_scale_2", torch.ones(1)), "weight_scale_2: in"),
        (damage.add(f"{damage.Q_PROJ}.weight.quant_state.bitsandbytes__nf4", torch.ones(1)), "nf4: in"),
        (damage.add(f"{damage.Q_PROJ}.lora_A.default.weight", torch.ones(8, 64)), "lora_A.default.weight: in"),
        (damage.add(f"{damage.Q_PROJ}.bias", torch.ones(128)), r"q_proj\.bias: in .* belongs to weights"),
        (damage.add("language_model.model.layers.0.mlp.experts.gate_up_proj_blocks", torch.ones(1)), "_blocks: in"),
        (damage.add("language_model.model.layers.0.self_attn.k_scale", torch.ones(1)), "k_scale: in"),
        (
            lambda t: t.update({f"{damage.Q_PROJ}.qweight": t.pop(f"{damage.Q_PROJ}.weight").to(torch.int32)}),
            "qweight: in",
        ),
        (
            lambda t: t.update({f"{damage.Q_PROJ}.weight_packed": t.pop(f"{damage.Q_PROJ}.weight").to(torch.int32)}),
            "weight_packed: in",
        ),
    ],
)
def test_quantized_and_partial_weights_are_refused(chat, made, change, words):
    damage.change_weights(change)(chat)
    refused(f"{words}.*{ORIGINAL}", chat, made / "voice")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_plain_numbers_of_every_width_are_taken(chat, made, dtype):
    damage.change_weights(lambda t: t.update({name: value.to(dtype) for name, value in t.items()}))(chat)
    open_inputs(chat, made / "voice", None)


@pytest.mark.parametrize(
    "name",
    [
        "audio_invert_tower.lm_head.weight",
        "continuous_audio_tower.audio_bos_eos_token.weight",
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.block.layer_scale",
    ],
)
def test_tensors_that_are_merely_unused_are_fine(chat, made, name):
    damage.change_weights(damage.add(name, torch.ones(2)))(chat)
    open_inputs(chat, made / "voice", None)


@pytest.mark.parametrize("section", ["", "text_config", "audio_config", "crq_transformer_config"])
@pytest.mark.parametrize("key", ["quantization_config", "compression_config", "quantization"])
def test_a_configuration_of_quantization_is_refused_wherever_it_stands(chat, made, section, key):
    def change(config):
        sections = {"": config, **config, **config["audio_config"]}
        sections[section][key] = {"quant_method": "gptq"}

    damage.edit(chat / "config.json", change)
    refused(f"{section}.*{key}: is .*gptq.*{ORIGINAL}", chat, made / "voice")


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quantize_config.json", "hqq_quant_config.json"])
def test_a_quantizers_file_beside_the_weights_is_refused(chat, made, name):
    (chat / name).write_text("{}")
    refused(f"{name}: lies in .*quantized", chat, made / "voice")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "base_model.model.", "model.", "_fsdp_wrapped_module.module."]
)
def test_names_as_training_wrappers_save_them_are_told(chat, made, prefix):
    damage.change_weights(lambda t: t.update({prefix + name: t.pop(name) for name in list(t)}))(chat)
    refused(rf"found no such tensor in .*, but {prefix}language_model.*; save the model itself", chat, made / "voice")


@pytest.mark.parametrize(
    "name", ["consolidated.safetensors", "model-Q4_K_M.gguf", "pytorch_model.bin", "pytorch_model.bin.index.json",
             "pytorch_model_fsdp_0", "global_step100", "checkpoint-500", "model.pth"],
)  # fmt: skip
def test_weights_of_other_tools_are_named(chat, made, name):
    for path in chat.glob("*.safetensors*"):
        path.unlink()
    (chat / name).mkdir()
    refused(rf"holds neither .*, but {name}; give the checkpoint as save_pretrained", chat, made / "voice")


def test_an_adapter_is_refused(chat, made):
    (chat / "adapter_config.json").write_text("{}")
    refused("adapter_config.json: .*merge it", chat, made / "voice")


@pytest.mark.parametrize("keep_shards", [True, False])
def test_a_single_file_goes_before_an_index(chat, made, keep_shards):
    before = damage.weights(chat)
    damage.stale_index(chat, keep_shards)
    opened = open_inputs(chat, made / "voice", None)
    found = load_weights(chat, all_shapes(opened.config), torch.float32)
    assert all(torch.equal(found[name], before[name]) for name in found)
    assert any("model.safetensors is read" in note for note in opened.notes)


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ([], "weight_map: is \\[\\]; a value of type dict"),
        ({}, "weight_map: is empty"),
        ({"a": 7}, "weight_map.a: is 7"),
        ({"a": "../chat/model-00001-of-00002.safetensors"}, "name of a file in this directory"),
        ({"a": "/etc/passwd"}, "name of a file in this directory"),
        ({"a": "模型.safetensors"}, "name of a file in this directory"),
        ({"a": "a\0b"}, "name of a file in this directory"),
        ({"a": "model-00009-of-00009.safetensors"}, "named by .* but missing"),
        ({"a": "."}, r"directory"),
    ],
)
def test_an_index_that_cannot_be_followed_is_named(chat, made, weight_map, words):
    damage.edit(chat / damage.INDEX, lambda index: index.update(weight_map=weight_map))
    refused(words, chat, made / "voice")


def test_a_tensor_in_two_shards_must_be_the_same(chat, made):
    first, second = (chat / f"model-0000{i}-of-00002.safetensors" for i in (1, 2))
    name, tensor = next(iter(load_file(first).items()))
    save_file(load_file(second) | {name: tensor}, second)
    open_inputs(chat, made / "voice", None)
    save_file(load_file(second) | {name: tensor + 1}, second)
    refused(f"{re.escape(name)}: lies in {first.name} and in {second.name}", chat, made / "voice")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_found_by_the_first_step(chat, value):
    def spoil(tensors):
        tensors[f"{damage.Q_PROJ}.weight"][3, 5] = value

    step = weights_step(ModelConfig.read(chat), "float32")
    assert step.outputs() == []
    damage.change_weights(spoil)(chat)
    with pytest.raises(BuildError, match=r"layers\.0\.self_attn\.q_proj\.weight: holds numbers that are not finite"):
        step.outputs()


def test_numbers_beyond_the_chosen_type_are_found(chat):
    def spoil(tensors):
        tensors[f"{damage.Q_PROJ}.weight"][3, 5] = 1e5

    damage.change_weights(spoil)(chat)
    assert weights_step(ModelConfig.read(chat), "bfloat16").outputs() == []
    with pytest.raises(BuildError, match="not finite in float16"):
        weights_step(ModelConfig.read(chat), "float16").outputs()


def test_rotary_positions_as_transformers_5_writes_them(chat, made):
    def change(config):
        for part in damage.decoders(config):
            part["rope_parameters"] = {"rope_type": "default", "rope_theta": part.pop("rope_theta")}
            del part["rope_scaling"]

    thetas = ModelConfig.read(chat).backbone.rope_theta, ModelConfig.read(chat).speech_head.rope_theta
    damage.edit(chat / "config.json", change)
    config = open_inputs(chat, made / "voice", None).config
    assert (config.backbone.rope_theta, config.speech_head.rope_theta) == thetas


@pytest.mark.parametrize("key", ["rope_parameters", "rope_scaling"])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"rope_type": "yarn", "factor": 4.0, "rope_theta": 5e6}, "rope_type: is 'yarn'"),
        ({"type": "linear", "factor": 2.0}, "type: is 'linear'"),
        ({"rope_type": "default", "mrope_section": [24, 20, 20]}, "mrope_section: is"),
        ({"rope_type": "default", "partial_rotary_factor": 0.5}, "partial_rotary_factor: is 0.5"),
        ({"rope_type": "default", "rope_theta": 1e4}, "rope_theta: is 5e\\+06, but .*rope_theta is 10000"),
        ({"rope_type": "default", "type": "dynamic"}, "type: is 'dynamic'"),
        ({"full_attention": {"rope_type": "llama3"}}, "full_attention.rope_type: is 'llama3'"),
        ({"full_attention": {"rope_theta": 5e6}, "sliding_attention": {"rope_theta": 1e4}}, "but .*sliding"),
        ("default", "is 'default'; a value of type dict"),
    ],
)
def test_other_rotary_positions_are_refused(chat, made, key, value, words):
    damage.edit(chat / "config.json", lambda config: config["text_config"].update({key: value}))
    refused(rf"text_config\..*{words}", chat, made / "voice")


@pytest.mark.parametrize(
    "value",
    [None, {"rope_type": "default"}, {"type": "default", "rope_theta": 5e6}, {"full_attention": {"rope_theta": 5e6}}],
)
def test_plain_rotary_positions_are_taken(chat, made, value):
    damage.edit(chat / "config.json", lambda config: config["text_config"].update(rope_scaling=value))
    assert open_inputs(chat, made / "voice", None).config.backbone.rope_theta == 5e6


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("text_config", "tie_word_embeddings", True),
        ("text_config", "layer_types", ["sliding_attention"] * 4),
        ("text_config", "use_sliding_window", True),
        ("text_config", "attention_bias", True),
        ("text_config", "mlp_bias", True),
        ("text_config", "hidden_act", "gelu"),
        ("text_config", "model_type", "qwen2"),
        ("text_config", "logit_scale", 0.5),
        ("text_config", "final_logit_softcapping", 30.0),
        ("text_config", "rms_norm_eps", 0),
        ("text_config", "num_key_value_heads", 0),
        ("text_config", "num_hidden_layers", 10**9),
        ("audio_config", "scale_embedding", True),
        ("audio_config", "activation_function", "relu"),
        ("audio_config", "max_source_positions", 50),
        ("audio_config", "bos_token_id", 6565),
        ("audio_config", "d_model", 2),
    ],
)
def test_keys_that_change_the_arithmetic_are_refused(chat, made, section, key, value):
    damage.edit(chat / "config.json", lambda config: config[section].update({key: value}))
    refused(rf"config\.json.*({key}|num_layers|num_kv_heads|n_window|bos): ", chat, made / "voice")


def test_keys_that_are_unknown_are_told(chat, made):
    damage.edit(chat / "config.json", lambda config: config["text_config"].update(brand_new=1, dtype="bfloat16"))
    [note] = open_inputs(chat, made / "voice", None).notes
    assert "text_config.brand_new is unknown here" in note


def limited(made, chat, *given):
    """What a server would be started with, found good or refused."""
    opened = open_inputs(chat, made / "voice", None)
    asked = BuildRequest("cpu", chat.parent, settings=Settings.read(given))
    options = portable_options(asked, opened.config, chat.parent)
    check_limits(opened, options)
    return options


def positions(chat, part, most):
    damage.edit(chat / "config.json", lambda c: damage.decoders(c)[part].update(max_position_embeddings=most))


@pytest.mark.parametrize(("part", "most", "expected"), [(1, 8192, 1638), (0, 512, 512), (0, 100, 100), (1, 500, 100)])
def test_defaults_are_what_the_checkpoint_bears(chat, made, part, most, expected):
    positions(chat, part, most)
    assert limited(made, chat).engine.max_positions == most_positions(ModelConfig.read(chat), 4096) == expected
    with pytest.raises(BuildError, match=r"max_positions: .* exceeds the \d+ of the checkpoint; lower"):
        limited(made, chat, f"engine.max_positions={expected + 1}")


@pytest.mark.parametrize(("part", "most"), [(0, 1), (0, 5), (0, 64), (1, 1), (1, 4), (1, 5), (1, 300)])
def test_a_checkpoint_without_room_for_a_question_is_refused(chat, made, part, most):
    positions(chat, part, most)
    with pytest.raises(BuildError, match=r"engine.max_positions: \d+ are too few for a question of \d+ and an answer"):
        limited(made, chat)


def test_a_small_cache_for_a_short_checkpoint_is_taken(chat, made):
    positions(chat, 0, 512)
    assert limited(made, chat, "engine.kv_positions=1024").engine.kv_positions == 1024
    with pytest.raises(BuildError, match="kv_positions: 500 is less than max_positions 512"):
        limited(made, chat, "engine.kv_positions=500")


@pytest.mark.parametrize("setting", ["limits.audio_s=0.5", "limits.clip_s=0.5"])
def test_bounds_that_refuse_the_first_question_are_refused(chat, made, setting):
    with pytest.raises(BuildError, match=r"set limits: the server could not ask its first question: audio: .*; raise"):
        limited(made, chat, setting)


@pytest.mark.parametrize("setting", ["token2wav.max_streams=9000000000", "token2wav.window=9000000000"])
def test_more_than_the_memory_holds_is_refused_before_the_first_step(made, chat, setting):
    with pytest.raises(BuildError, match=r"set token2wav: max_streams .*; lower one of them"):
        limited(made, chat, setting)


@pytest.mark.parametrize("wrong", ["--model", "--cosyvoice", "--voices"])
def test_inputs_that_are_wrong_leave_an_earlier_folder_as_it_was(made, chat, voice, tmp_path, wrong, capsys):
    out = tmp_path / "out"
    builder = Builder(prepare_folder(out), Manifest("cpu", {}), lambda line: None)
    builder.step("model repository", [], ["model_repository"], None, lambda: render_repository(out))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    (chat / "tokenizer.json").unlink()
    (voice / "flow.pt").write_bytes(b"")
    given = {"--model": made / "chat", "--cosyvoice": made / "voice", "--voices": made / "voice" / "spk2info.pt"}
    given[wrong] = {"--model": chat, "--cosyvoice": voice, "--voices": chat / "config.json"}[wrong]
    assert builders_main(["build", "--out", str(out), *(str(word) for pair in given.items() for word in pair)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    verify(out)


def test_a_built_folder_that_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "options.json").write_text("[]")
    with pytest.raises(BuildError, match=r"options\.json: is not a JSON object"):
        open_built(tmp_path)


def test_a_step_without_room_or_with_a_lost_process_is_one_line(tmp_path):
    def fail(error):
        def work():
            raise error

        with pytest.raises(BuildError) as caught:
            Builder(tmp_path, Manifest("cpu", {}), str).step("token2wav", [], [], None, work)
        return str(caught.value)

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "flow.onnx"))
    assert "token2wav: " in fail(full) and "flow.onnx: No space left on device; see that the disk" in fail(full)
    assert "token2wav: a process of it was lost" in fail(BrokenProcessPool("gone"))


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("tokenizer.json", None, "tokenizer: cannot be read"),
        ("tokenizer.json", "{}", "tokenizer: cannot be read"),
        ("tokenizer_config.json", "[]", "tokenizer: cannot be read"),
        ("chat_template.jinja", None, "chat_template: "),
        ("chat_template.jinja", "{% for m in", "chat_template: "),
        ("chat_template.jinja", "{{ nothing.there }}", "chat_template: "),
        ("chat_template.jinja", "no turn at all", "chat_template: does not write every message"),
        ("chat_template.jinja", "{{ raise_exception('no') }}", "chat_template: "),
        ("preprocessor_config.json", None, "preprocessor_config.json: not found"),
        ("generation_config.json", None, "generation_config.json: not found"),
        ("generation_config.json", '{"eos_token_id": [true]}', "eos_token_id.0: is True"),
        ("generation_config.json", '{"eos_token_id": []}', r"eos_token_id: is \[\]"),
        ("generation_config.json", '{"eos_token_id": 10000000}', "an id below"),
        ("generation_config.json", '{"eos_token_id": 440}', "440 of generation_config.json is no token"),
        ("config.json", '{"a": 1, "a": 2}', "config.json: a: stands twice"),
        ("config.json", "\ufeff{}", "byte order mark"),
        ("config.json", "{}".encode("utf-16"), "is UTF-16; save it as plain UTF-8"),
        ("config.json", b'{"a": "\xc4\xa3"}'.replace(b"\xc4\xa3", b"\xc4\xff"), "is not UTF-8"),
        ("config.json", "[" * 100_000, "config.json: is not JSON"),
        ("config.json", "version https://git-lfs.github.com/spec/v1\n", "only a pointer of Git LFS"),
    ],
)
def test_text_files_that_cannot_be_used_are_named(chat, made, file, change, words):
    if change is None:
        (chat / file).unlink()
    else:
        (chat / file).write_bytes(change if isinstance(change, bytes) else change.encode())
    refused(words, chat, made / "voice")


LIST = [{"name": "default", "template": TEMPLATE}, {"name": "tool_use", "template": "x"}]


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "extra_special_tokens": ["<|im_start|>"]},
        {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]},
        {"extra_special_tokens": {"image_token": "<|im_start|>"}},
        {"tokenizer_class": "FunAudioChatTokenizer", "auto_map": {"AutoTokenizer": ["tokenization.Fun", None]}},
        {"tokenizer_class": "Qwen2Tokenizer"},
        {"chat_template": TEMPLATE},
        {"chat_template": LIST},
        None,
    ],
)
def test_tokenizers_of_any_version_give_the_same_ids(chat, made, config):
    messages = single_turn(SYSTEM_PROMPTS["s2s"], "<think> 你好", 1)
    expected = PromptBuilder(ModelConfig.read(chat), ChatTokenizer(chat)).build(messages, [16000])
    if config is None:
        (chat / "tokenizer_config.json").unlink()
    else:
        damage.edit(chat / "tokenizer_config.json", lambda values: values.update(config))
        if "chat_template" in config:
            (chat / "chat_template.jinja").unlink()
    opened = open_inputs(chat, made / "voice", None)
    assert (PromptBuilder(opened.config, ChatTokenizer(chat)).build(messages, [16000]) == expected).all()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (json.dumps({"chat_template": TEMPLATE}), None),
        ("{}", "chat_template.json: holds no text under chat_template"),
        ("[]", "chat_template.json: holds no text under chat_template"),
        ("{", "chat_template.json: is not JSON"),
    ],
)
def test_a_template_in_the_place_of_a_processors(chat, made, text, words):
    (chat / "chat_template.jinja").unlink()
    (chat / "chat_template.json").write_text(text)
    if words is None:
        open_inputs(chat, made / "voice", None)
    else:
        refused(words, chat, made / "voice")


def test_an_extractor_inside_a_processors_file(chat, made):
    expected = ModelConfig.read(chat).features
    values = json.loads((chat / "preprocessor_config.json").read_text())
    (chat / "preprocessor_config.json").unlink()
    (chat / "processor_config.json").write_text(json.dumps({"feature_extractor": values | {"n_fft": 401}}))
    refused(r"processor_config\.json: n_fft: 401 is odd", chat, made / "voice")
    (chat / "processor_config.json").write_text(json.dumps({"feature_extractor": values}))
    assert open_inputs(chat, made / "voice", None).config.features == expected


@pytest.mark.parametrize("key", ["audio_token_index", "audio_bos_index", "audio_eos_index"])
def test_ids_that_disagree_with_the_tokenizer_are_named(chat, made, key):
    def change(config):
        section = config if key in config else config["text_config"]
        section[key] += 1

    damage.edit(chat / "config.json", change)
    refused(r"tokenizer: <\|\w+\|> is \d+ in the tokenizer, but \d+ in config\.json", chat, made / "voice")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feature_size", 80),
        ("hop_length", 200),
        ("n_fft", 401),
        ("sampling_rate", 8000),
        ("dither", 0.1),
        ("do_normalize", True),
        ("chunk_length", -1),
        ("n_samples", 5),
        ("feature_extractor_type", "SeamlessM4TFeatureExtractor"),
    ],
)
def test_an_extractor_that_cannot_be_computed_is_named(chat, made, key, value):
    damage.edit(chat / "preprocessor_config.json", lambda values: values.update({key: value}))
    refused(r"preprocessor_config\.json: ", chat, made / "voice")


@pytest.mark.parametrize("name", [*CHAT_FILES, "model-00001-of-00002.safetensors"])
def test_folders_links_and_pointers_in_the_place_of_files(chat, made, name):
    path = chat / name
    path.unlink()
    path.symlink_to(chat / "nowhere")
    refused(rf"{re.escape(name)}: is a link to a file that is not there", chat, made / "voice")
    path.unlink()
    path.symlink_to(path)
    refused(re.escape(name), chat, made / "voice")
    path.unlink()
    path.mkdir()
    refused(re.escape(name), chat, made / "voice")


@pytest.mark.parametrize("out", ["/proc/x", "/dev/null/x"])
def test_an_out_that_cannot_be_written_is_named(out):
    with pytest.raises(BuildError, match=rf"OUT: {out} cannot be written \(.*\); choose another OUT"):
        prepare_folder(Path(out))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opens_or_is_refused_in_one_line(chat, voice):
    try:
        open_inputs(chat, voice, None)
    except BuildError as error:
        assert len(str(error).splitlines()) == 1, error


@pytest.mark.slow
@QUICK
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["flip", "cut", "add", "empty"]))
def test_a_file_damaged_anywhere_is_opened_or_refused_in_one_line(made, tmp_path_factory, seed, kind):
    draw = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    chat, voice = (damage.copy_of(made / name, folder / name) for name in ("chat", "voice"))
    path = draw.choice(sorted([*chat.iterdir(), *voice.iterdir()]))
    data = bytearray(path.read_bytes())
    # Headers decide: most of the damage goes there.
    at = draw.randrange(min(len(data), draw.choice([64, 4096, len(data)])))
    if kind == "flip":
        data[at : at + 3] = draw.randbytes(3)
    elif kind == "cut":
        del data[at:]
    elif kind == "add":
        data[at:at] = draw.randbytes(draw.randrange(1, 20))
    else:
        data.clear()
    path.write_bytes(data)
    opens_or_is_refused_in_one_line(chat, voice)
    shutil.rmtree(folder)


@pytest.mark.slow
@settings(QUICK, max_examples=80)
@given(data=st.data(), file=st.sampled_from(CHAT_FILES), remove=st.booleans(), value=JSON)
def test_keys_of_any_kind_are_taken_or_refused_in_one_line(made, chat, data, file, remove, value):
    values = json.loads((made / "chat" / file).read_text())
    objects = [values]
    for found in objects:
        objects += [inner for inner in found.values() if isinstance(inner, dict)]
    target = data.draw(st.sampled_from(objects))
    key = data.draw(st.sampled_from(sorted(target)) | st.text(max_size=3)) if target else "a"
    target.pop(key, None) if remove else target.update({key: value})
    (chat / file).write_text(json.dumps(values))
    opens_or_is_refused_in_one_line(chat, made / "voice")
    shutil.copy(made / "chat" / file, chat / file)
