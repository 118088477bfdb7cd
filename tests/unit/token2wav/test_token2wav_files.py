"""Configuration, weights, voices and noise of token2wav without a net being run."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.noise_recipe import draw_noise
from builders.tiny_cosyvoice import document, write_tiny_cosyvoice
from builders.voices import read_voices
from runtime.errors import BuildError
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.noise import Noise
from runtime.token2wav.vocoder.context import PITCH_LEFT, RIGHT, left_frames
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.weights import expected_shapes, fold_weight_norm, load_module, read_tensors

LAYOUT = Path(__file__).parents[2] / "golden" / "token2wav" / "real_layout.json"
# Sizes of the released net (reference section 1), and the kinds of tags that its file holds beside them.
RELEASED = (
    document()
    .replace("channels: 96", "channels: 1024")
    .replace("dim: 64", "dim: 1024")
    .replace("depth: 3", "depth: 22")
    .replace("heads: 4", "heads: 16")
    .replace("dim_head: 16", "dim_head: 64")
    .replace("base_channels: 64", "base_channels: 512")
    .replace("cond_channels: 64", "cond_channels: 512")
    + """
__set_seed1: !apply:random.seed [1986]
llm_input_size: 896
llm: !new:cosyvoice.llm.llm.CosyVoice3LM
    llm_input_size: !ref <llm_input_size>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: 0.8
allowed_special: 'all'
get_tokenizer: !name:whisper.tokenizer.get_tokenizer
    multilingual: True
    num_languages: 100
parquet_opener: !name:cosyvoice.dataset.processor.parquet_opener
tokenize: !name:cosyvoice.dataset.processor.tokenize
    get_tokenizer: !ref <get_tokenizer>
    allowed_special: !ref <allowed_special>
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    sampling_rate: !ref <sample_rate>
    fmax: null
    center: False
compute_f0: !name:cosyvoice.dataset.processor.compute_f0
    hop_size: !ref <feat_extractor[hop_size]>
padding: !lambda "x: x.sort()"
path: !PLACEHOLDER
pair: !!python/tuple [1, 2]
module: !!python/module:os
other: !<tag:example.com,2000:thing> {a: 1}
copied: !copy <feat_extractor>
data_pipeline: [
    !ref <parquet_opener>,
    !ref <tokenize>,
]
hifigan: !new:cosyvoice.hifigan.hifigan.HiFiGan
    generator: !ref <hift>
    mel_spec_transform: [
        !ref <feat_extractor>
    ]
train_conf:
    optim: adam
    optim_conf: {lr: 1e-5}
"""
)


@pytest.fixture
def tiny(tmp_path):
    write_tiny_cosyvoice(tmp_path)
    return tmp_path


def config_of(tmp_path, document):
    (tmp_path / "cosyvoice3.yaml").write_text(document, "utf-8")
    return Token2WavConfig.read(tmp_path)


def test_every_name_and_shape_of_the_released_files(tmp_path):
    config = config_of(tmp_path, RELEASED)
    layout = json.loads(LAYOUT.read_text())
    with torch.device("meta"):
        modules = {"flow.pt": Flow(config.flow), "hift.pt": Vocoder(config.hift)}
    for file, module in modules.items():
        released = {name: torch.empty(shape, device="meta") for name, shape in layout[file].items()}
        folded = {name: tuple(tensor.shape) for name, tensor in fold_weight_norm(released).items()}
        assert expected_shapes(module) == folded


def test_the_vocoder_looks_back_29_frames_at_the_released_kernels(tmp_path):
    hift = config_of(tmp_path, RELEASED).hift
    assert (left_frames(hift), PITCH_LEFT, RIGHT) == (29, 8, 8)


def test_yaml_is_data(tmp_path):
    mark = tmp_path / "executed"
    hostile = f"\nevil: !!python/object/apply:os.system ['touch {mark}']\nworse: !apply:os.system ['touch {mark}']\n"
    assert config_of(tmp_path, document() + hostile).flow.block_frames == 50
    assert not mark.exists()


def test_a_file_that_is_no_yaml(tmp_path):
    with pytest.raises(BuildError, match=r"cosyvoice3\.yaml: is not YAML"):
        config_of(tmp_path, "a: [")
    with pytest.raises(BuildError, match=r"cosyvoice3\.yaml: is not a mapping"):
        config_of(tmp_path, "just text")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("vocab_size: 6561", "", r"flow\.vocab_size: is missing"),
        ("depth: 3", "depth: three", r"depth: is 'three'"),
        (
            "!ref <chunk_size> * <token_mel_ratio>",
            "!ref <chunk> * 2",
            r"static_chunk_size.*arithmetic|chunk: is missing",
        ),
        ("!ref <chunk_size> * <token_mel_ratio>", "!ref __import__('os')", "only arithmetic"),
        ("!ref <chunk_size> * <token_mel_ratio>", "!ref <flow.decoder.estimator.static_chunk_size>", "only arithmetic"),
        ("upsample_rates: [8, 5, 3]", "upsample_rates: [8, x, 3]", r"upsample_rates: is .*whole numbers"),
        ("resblock_dilation_sizes: [[1, 3, 5],", "resblock_dilation_sizes: [1,", r"lists of whole numbers"),
        ("depth: 3", "depth: 0", r"FlowConfig\.depth: is 0"),
        ("dim: 64", "dim: 60", r"FlowConfig\.dim: is 60; a multiple of 16"),
        ("upsample_kernel_sizes: [16, 11, 7]", "upsample_kernel_sizes: [16, 11]", r"upsample_kernels.*3 entries"),
        ("token_frame_rate: 25", "token_frame_rate: 20", r"token_hz: is 20: 960 samples each make no 24000 Hz"),
        ("in_channels: 80", "in_channels: 100", r"mel_bins: is 80 and 100"),
    ],
)
def test_bad_configuration_names_file_and_key(tmp_path, old, new, message):
    assert old in document()
    with pytest.raises(BuildError, match=message):
        config_of(tmp_path, document().replace(old, new))


def test_missing_directory(tmp_path):
    with pytest.raises(BuildError, match=r"cosyvoice3\.yaml: not found"):
        Token2WavConfig.read(tmp_path)


def test_tiny_checkpoint_is_deterministic_and_loads(tiny, tmp_path):
    config = Token2WavConfig.read(tiny)
    flow = load_module(Flow(config.flow), tiny / "flow.pt")
    load_module(Vocoder(config.hift), tiny / "hift.pt")
    again = tmp_path / "again"
    write_tiny_cosyvoice(again)
    first, second = read_tensors(tiny / "flow.pt"), read_tensors(again / "flow.pt")
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert not flow.training


def test_misshaped_and_missing_tensors_are_named(tiny):
    config = Token2WavConfig.read(tiny)
    state = torch.load(tiny / "flow.pt", weights_only=True)
    state["input_embedding.weight"] = state["input_embedding.weight"][:10].clone()
    torch.save(state, tiny / "flow.pt")
    with pytest.raises(BuildError, match=r"input_embedding\.weight: expected shape \[6561, 80\], found \[10, 80\]"):
        load_module(Flow(config.flow), tiny / "flow.pt")
    del state["input_embedding.weight"]
    torch.save(state, tiny / "flow.pt")
    with pytest.raises(BuildError, match=r"input_embedding\.weight: .*found no such tensor"):
        load_module(Flow(config.flow), tiny / "flow.pt")


def test_prefix_and_older_spelling_of_weight_norm(tiny):
    state = torch.load(tiny / "hift.pt", weights_only=True)
    renamed = {
        "generator."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in state.items()
    }
    expected = read_tensors(tiny / "hift.pt")
    torch.save(renamed, tiny / "renamed.pt")
    found = read_tensors(tiny / "renamed.pt")
    assert found.keys() == expected.keys() and all(torch.equal(found[n], expected[n]) for n in expected)


def test_gains_and_directions_must_match(tiny):
    state = torch.load(tiny / "hift.pt", weights_only=True)
    name = "conv_pre.parametrizations.weight.original"
    state[name + "0"] = state[name + "0"][:5]
    with pytest.raises(BuildError, match=r"conv_pre.*original0: expected shape \[64, 1, 1\], found \[5, 1, 1\]"):
        fold_weight_norm(state)
    del state[name + "1"]
    with pytest.raises(BuildError, match=r"conv_pre.*original1: is missing beside its gain"):
        fold_weight_norm(state)


def test_the_older_file_format_is_read(tiny):
    state = read_tensors(tiny / "flow.pt")
    torch.save(state, tiny / "old.pt", _use_new_zipfile_serialization=False)
    assert read_tensors(tiny / "old.pt").keys() == state.keys()


def test_pickles_that_are_no_tensors_are_refused(tmp_path):
    torch.save({"a": Path("x")}, tmp_path / "flow.pt")
    with pytest.raises(BuildError, match=r"flow\.pt: cannot be read as plain tensors"):
        read_tensors(tmp_path / "flow.pt")


def test_voices(tiny, tmp_path):
    voices = read_voices(tiny, None, 192)
    assert list(voices) == ["中文女", "other"] and voices["other"].shape == (192,)
    given = tmp_path / "mine.pt"
    torch.save({"b": {"embedding": torch.ones(1, 192)}, "a": {"embedding": torch.ones(192)}}, given)
    assert list(read_voices(tiny, given, 192)) == ["b", "a"], "the first of the file is the default"
    with pytest.raises(BuildError, match=r"VOICES: .*new_spk2info\.pt"):
        read_voices(tmp_path / "nowhere", None, 192)
    with pytest.raises(BuildError, match="expected an embedding of 99 numbers"):
        read_voices(tiny, None, 99)


def test_noise_of_the_released_sizes(tmp_path):
    mel, source = draw_noise(config_of(tmp_path, RELEASED), seconds=1)
    np.testing.assert_allclose(mel[0, :3], [-1.12584, -1.15236, -0.25058], atol=1e-5)
    np.testing.assert_allclose(source[0, :3], [0.92283, 0.47745, 0.82705], atol=1e-5)
    assert mel.shape == (80, 15000) and source.shape == (24000, 9)


@torch.inference_mode()
def test_tiny_net_is_audible_and_not_clipped(tiny):
    config = Token2WavConfig.read(tiny)
    vocoder = load_module(Vocoder(config.hift), tiny / "hift.pt")
    frames, generator = 60, torch.Generator().manual_seed(0)
    mel = torch.randn(1, 80, frames + 4, generator=generator)
    noise = torch.rand(1, frames * 480, 9, generator=generator)
    lead, length = torch.tensor([0]), torch.tensor([frames])
    sound, f0 = vocoder(mel[:, :, :-1], mel, torch.zeros(1, 9), noise, lead, length, length)
    assert sound.shape == (1, frames * 480) and sound.isfinite().all()
    assert 0.003 < sound.std() < 0.5 and (sound.abs() >= 0.99).float().mean() < 0.01
    assert (f0 > 10).any(), "voiced"


@pytest.mark.parametrize(("begin", "end"), [(0, 4), (8, 10), (8, 13), (10, 12), (23, 31)])
def test_noise_wraps(tmp_path, begin, end):
    np.save(tmp_path / "noise.npy", np.arange(20.0).reshape(2, 10))
    found = Noise(tmp_path / "noise.npy", axis=1).window(begin, end)
    np.testing.assert_array_equal(found, [np.arange(begin, end) % 10, np.arange(begin, end) % 10 + 10])
