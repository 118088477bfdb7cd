"""Checkpoints whose backbone has experts: names and shapes as announced, keys, and errors that name what is wrong."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders.tiny_chat import TINY_EXPERTS, write_tiny_chat
from runtime.checkpoint.experts import ExpertSizes
from runtime.checkpoint.fields import Fields
from runtime.checkpoint.keys import unknown_keys
from runtime.checkpoint.weights import check_weights, load_weights
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import all_shapes

A3B = Path(__file__).parents[2] / "golden" / "fun_audio_chat_moe" / "real_tensors.tsv"
EXPERTS, LAYER = 128, "language_model.model.layers.1.mlp."
UNREAD = {"continuous_audio_tower.audio_bos_eos_token.weight", "audio_invert_tower.lm_head.weight"}


@pytest.fixture
def tiny(tmp_path):
    write_tiny_chat(tmp_path, sizes=TINY_EXPERTS)
    return tmp_path


def edit(directory, change):
    path = directory / "config.json"
    values = json.loads(path.read_text())
    change(values["text_config"], values["audio_config"])
    path.write_text(json.dumps(values))


def released(text, audio):
    """Sizes of Qwen3-30B-A3B, and of the parts for speech what follows from them if they are made like the 8B's."""
    text.update(
        hidden_size=2048, num_hidden_layers=48, num_attention_heads=32, num_key_value_heads=4, head_dim=128,
        intermediate_size=6144, vocab_size=151936, num_experts=EXPERTS, num_experts_per_tok=8,
        moe_intermediate_size=768, norm_topk_prob=True, decoder_sparse_step=1, mlp_only_layers=[],
    )  # fmt: skip
    audio.update(d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, output_dim=2048)
    audio["crq_transformer_config"].update(
        hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
        intermediate_size=3072,
    )  # fmt: skip


def real_tensors():
    """The file lists layers and experts once; what no checkpoint says is marked as inferred."""
    tensors = {}
    with A3B.open() as file:
        for name, shape, layers, _ in csv.reader(file, delimiter="\t"):
            for expert in range(EXPERTS if "{e}" in name else 1):
                one = name.replace("{e}", str(expert))
                tensors |= {one.replace("{i}", str(i)): tuple(json.loads(shape)) for i in range(int(layers))}
    return tensors


def test_every_name_and_shape_of_the_released_sizes(tiny):
    edit(tiny, released)
    expected, real = all_shapes(ModelConfig.read(tiny)), real_tensors()
    assert len(real) > 48 * 3 * EXPERTS and set(real) - set(expected) == UNREAD
    assert expected == {name: shape for name, shape in real.items() if name not in UNREAD}
    backbone = sum(torch.Size(shape).numel() for name, shape in real.items() if name.startswith("language_model."))
    assert backbone == pytest.approx(30.5e9, rel=2e-3), "as Qwen states it"


def test_a_tiny_checkpoint_with_experts_is_whole(tiny):
    config = ModelConfig.read(tiny)
    assert config.backbone.experts == TINY_EXPERTS.backbone.experts and config.speech_head.experts is None
    assert load_weights(tiny, all_shapes(config), torch.float32).keys() == all_shapes(config).keys()
    assert not list(unknown_keys(Fields.read(tiny / "config.json")))


@pytest.mark.parametrize(
    ("step", "dense", "sparse"),
    [(1, (), [0, 1, 2, 3, 4]), (2, (), [1, 3]), (1, (0, 4, 9), [1, 2, 3]), (2, (3,), [1]), (9, (), [])],
)
def test_which_layers_have_experts(step, dense, sparse):
    sizes = ExpertSizes(4, 2, 8, True, step, dense)
    assert [layer for layer in range(5) if sizes.in_layer(layer)] == sparse


def test_layers_without_experts_have_one_mlp(tiny):
    shapes = all_shapes(ModelConfig.read(tiny))
    assert shapes["language_model.model.layers.3.mlp.gate_proj.weight"] == (160, 64)
    assert shapes[f"{LAYER}gate.weight"] == (6, 64) and shapes[f"{LAYER}experts.5.down_proj.weight"] == (64, 40)
    assert f"{LAYER}gate_proj.weight" not in shapes
    edit(tiny, lambda text, _: text.update(num_experts=0))
    assert f"{LAYER}gate_proj.weight" in all_shapes(ModelConfig.read(tiny)), "as transformers reads it"


def test_missing_keys_are_named(tiny):
    for key in ("num_experts", "num_experts_per_tok", "moe_intermediate_size", "norm_topk_prob", "decoder_sparse_step"):
        values = (tiny / "config.json").read_text()
        edit(tiny, lambda text, _, key=key: text.pop(key))
        with pytest.raises(BuildError, match=f"config.json: text_config.{key}: is missing"):
            ModelConfig.read(tiny)
        (tiny / "config.json").write_text(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts_per_tok": 7}, "num_experts_per_tok: 7 exceeds num_experts 6"),
        ({"num_experts": 2000}, "count: 2000 is not between 1 and 1024"),
        ({"moe_intermediate_size": 0}, "width: 0 is not between"),
        ({"decoder_sparse_step": 0}, "step: 0 is not between"),
        ({"norm_topk_prob": 1}, "text_config.norm_topk_prob: is 1; a value of type bool is needed"),
        ({"mlp_only_layers": "1"}, "text_config.mlp_only_layers: is '1'; a list of layer numbers is needed"),
        ({"mlp_only_layers": [True]}, "text_config.mlp_only_layers: is [True]"),
        ({"shared_expert_intermediate_size": 8}, "text_config.shared_expert_intermediate_size: is 8; only"),
        ({"scoring_func": "sigmoid"}, "text_config.scoring_func: is 'sigmoid'"),
        ({"n_group": 4}, "text_config.n_group: is 4"),
        ({"num_local_experts": 8}, "text_config.num_local_experts: is 8"),
        ({"model_type": "qwen2_moe"}, "text_config.model_type: is 'qwen2_moe'"),
        ({"model_type": "qwen3"}, "text_config.num_experts: is 6"),
        ({"attention_bias": True}, "text_config.attention_bias: is True"),
    ],
)
def test_what_is_not_implemented_is_refused_by_key(tiny, change, message):
    edit(tiny, lambda text, _: text.update(change))
    with pytest.raises(BuildError, match=re.escape(message)):
        ModelConfig.read(tiny)


def test_a_speech_head_has_no_experts(tiny):
    edit(tiny, lambda _, audio: audio["crq_transformer_config"].update(model_type="qwen3_moe"))
    with pytest.raises(BuildError, match=r"audio_config.crq_transformer_config.model_type: is 'qwen3_moe'"):
        ModelConfig.read(tiny)


def test_keys_that_change_nothing_pass_and_unknown_ones_are_told(tiny):
    given = {"router_aux_loss_coef": 0.01, "output_router_logits": True, "num_local_experts": 6, "expert_magic": 3}
    edit(tiny, lambda text, _: text.update(given))
    ModelConfig.read(tiny)
    assert list(unknown_keys(Fields.read(tiny / "config.json"))) == ["text_config.expert_magic"]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{LAYER}experts.4.up_proj.weight", None, r"expected shape \[40, 64\], found no such tensor"),
        (f"{LAYER}experts.4.up_proj.weight", (41, 64), r"expected shape \[40, 64\], found \[41, 64\] in "),
        (f"{LAYER}gate.weight", (5, 64), r"expected shape \[6, 64\], found \[5, 64\] in "),
        (f"{LAYER}gate.e_score_correction_bias", (6,), "belongs to weights that are read, but is not applied"),
        (f"{LAYER}experts.0.gate_proj.weight_scale", (1,), "belongs to weights that are read, but is not applied"),
    ],
)
def test_tensors_are_refused_by_name(tiny, name, shape, message):
    path = next(p for p in tiny.glob("*.safetensors") if f"{LAYER}gate.weight" in load_file(p))
    tensors = {other: tensor for other, tensor in load_file(path).items() if other != name}
    save_file(tensors if shape is None else tensors | {name: torch.zeros(shape)}, path)
    with pytest.raises(BuildError, match=rf"{re.escape(name)}: .*{message}"):
        check_weights(tiny, all_shapes(ModelConfig.read(tiny)))
