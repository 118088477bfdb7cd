"""Reading checkpoints: names and shapes of the released files, and errors that name what is wrong."""

import csv
import json
import re
from pathlib import Path

import pytest
import torch

from builders.tiny_chat import write_tiny_chat
from runtime.checkpoint.weights import check_weights, load_weights
from runtime.engines.options import EngineOptions
from runtime.engines.sizes import engine_shape
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import ModelConfig
from runtime.families.fun_audio_chat.tensors import all_shapes
from runtime.frontend.tokenizer import ChatTokenizer

REAL = Path(__file__).parents[2] / "golden" / "fun_audio_chat" / "real_tensors.tsv"
# Never read: a training token, and the head that is the codebook under another name.
UNREAD = {"continuous_audio_tower.audio_bos_eos_token.weight", "audio_invert_tower.lm_head.weight"}


@pytest.fixture
def tiny(tmp_path):
    write_tiny_chat(tmp_path)
    return tmp_path


def edit(directory, file, change):
    values = json.loads((directory / file).read_text())
    change(values)
    (directory / file).write_text(json.dumps(values))


def released(config):
    text, audio = config["text_config"], config["audio_config"]
    text.update(
        hidden_size=4096,
        num_hidden_layers=36,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=12288,
        vocab_size=151936,
    )
    audio.update(d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, output_dim=4096)
    audio["crq_transformer_config"].update(
        hidden_size=1024,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        intermediate_size=3072,
    )


def real_tensors():
    """Every tensor of the released checkpoint; the file lists layers once with their count."""
    tensors = {}
    with REAL.open() as file:
        for row in csv.reader(file, delimiter="\t"):
            shape = tuple(json.loads(row[1]))
            tensors |= {row[0].replace("{i}", str(i)): shape for i in range(int(row[2]))}
    return tensors


def test_every_name_and_shape_of_the_released_checkpoint(tiny):
    edit(tiny, "config.json", released)
    expected, real = all_shapes(ModelConfig.read(tiny)), real_tensors()
    assert len(real) > 1200
    assert set(real) - set(expected) == UNREAD
    assert expected == {name: shape for name, shape in real.items() if name not in UNREAD}


def test_tiny_checkpoint_is_deterministic(tiny, tmp_path):
    again = tmp_path / "again"
    write_tiny_chat(again)
    for path in again.iterdir():
        assert path.read_bytes() == (tiny / path.name).read_bytes(), path.name
    other = tmp_path / "other"
    write_tiny_chat(other, seed=1)
    assert any(p.read_bytes() != (again / p.name).read_bytes() for p in other.glob("*.safetensors"))


def test_tiny_checkpoint_is_sharded_and_complete(tiny):
    config = ModelConfig.read(tiny)
    assert len(list(tiny.glob("*.safetensors"))) == 2
    assert load_weights(tiny, all_shapes(config), torch.float32).keys() == all_shapes(config).keys()


def test_tiny_tokenizer_knows_the_control_tokens(tiny):
    config, tokenizer = ModelConfig.read(tiny), ChatTokenizer(tiny)
    ids = tokenizer.encode("<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|>Hello, 你好<|im_end|>")
    assert config.text_ids.audio in ids and ids[-1] in config.text_ids.stop
    stream = tokenizer.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == "user\nHello, 你好"


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "config.json",
            lambda c: c["text_config"].pop("rope_theta"),
            "config.json: text_config.rope_theta: is missing",
        ),
        ("config.json", lambda c: c["text_config"].update(hidden_size="64"), "text_config.hidden_size: is '64'"),
        (
            "config.json",
            lambda c: c["text_config"].update(rope_scaling={"type": "yarn"}),
            "rope_scaling.type: is 'yarn'",
        ),
        ("config.json", lambda c: c["audio_config"].update(continuous_features_mode="add"), "mode: is 'add'"),
        ("config.json", lambda c: c["audio_config"].update(n_window=101), "n_window: 101"),
        ("generation_config.json", lambda c: c.pop("eos_token_id"), "generation_config.json: eos_token_id: is missing"),
        ("preprocessor_config.json", lambda c: c.update(hop_length=1.5), "hop_length: is 1.5"),
    ],
)
def test_bad_configuration_names_file_and_key(tiny, file, change, message):
    edit(tiny, file, change)
    with pytest.raises(BuildError, match=re.escape(message)):
        ModelConfig.read(tiny)


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "preprocessor_config.json"])
def test_missing_files_are_named(tiny, file):
    (tiny / file).unlink()
    with pytest.raises(BuildError, match=f"{file}: not found"):
        ModelConfig.read(tiny)


def test_misshaped_and_missing_tensors_are_named(tiny):
    edit(tiny, "config.json", lambda c: c["text_config"].update(vocab_size=512))
    with pytest.raises(
        BuildError, match=r"(embed_tokens|lm_head)\.weight: expected shape \[512, 64\], found \[\d+, 64\] in model-"
    ):
        check_weights(tiny, all_shapes(ModelConfig.read(tiny)))
    edit(tiny, "config.json", lambda c: c["text_config"].update(vocab_size=448, num_hidden_layers=5))
    with pytest.raises(BuildError, match=r"layers\.4\..*: expected shape .*, found no such tensor"):
        load_weights(tiny, all_shapes(ModelConfig.read(tiny)), torch.float32)


def test_missing_and_damaged_shards_are_named(tiny):
    config = ModelConfig.read(tiny)
    shard = tiny / "model-00002-of-00002.safetensors"
    shard.write_bytes(b"not a checkpoint")
    with pytest.raises(BuildError, match=r"model-00002-of-00002\.safetensors: is damaged"):
        check_weights(tiny, all_shapes(config))
    shard.unlink()
    with pytest.raises(BuildError, match="missing; download"):
        check_weights(tiny, all_shapes(config))


def test_more_positions_than_the_checkpoint_has_are_refused(tiny):
    edit(
        tiny, "config.json", lambda c: c["audio_config"]["crq_transformer_config"].update(max_position_embeddings=5000)
    )
    speech_head = ModelConfig.read(tiny).speech_head
    assert engine_shape(speech_head, EngineOptions(max_positions=1000), 5).max_seq_len == 5000
    with pytest.raises(BuildError, match=r"max_positions: 1001 x 5 exceeds the 5000"):
        engine_shape(speech_head, EngineOptions(max_positions=1001), 5)
