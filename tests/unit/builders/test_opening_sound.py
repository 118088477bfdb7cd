"""The files of flow, vocoder and voices in every kind and state that people have them in."""

import json
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from builders.tiny_cosyvoice import document, write_tiny_cosyvoice
from builders.voices import read_voices
from runtime.errors import BuildError
from runtime.token2wav.config import Token2WavConfig
from runtime.token2wav.flow.net import Flow
from runtime.token2wav.vocoder.net import Vocoder
from runtime.token2wav.weights import fitting_tensors

WIDTH = 192
VECTOR = torch.linspace(-1, 1, WIDTH)
NAME = "decoder.estimator.proj_out.weight"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voice")
    write_tiny_cosyvoice(folder)
    return folder


@pytest.fixture(scope="module")
def flow(tiny):
    with torch.device("meta"):
        return Flow(Token2WavConfig.read(tiny).flow)


@pytest.fixture(scope="module")
def state(tiny):
    return torch.load(tiny / "flow.pt", weights_only=True)


def spoiled(state, value):
    tensor = state[NAME].clone()
    tensor[1, 2] = value
    return state | {NAME: tensor}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: list(s.values()), "flow.pt: holds a list, no tensors by name"),
        (lambda s: {"model": s, "epoch": 3}, r"flow.pt: holds no tensors by name, but model, epoch; save"),
        (lambda s: {}, "flow.pt: holds no tensors by name, but nothing"),
        (lambda s: 7, "flow.pt: holds a int"),
        (lambda s: dict(enumerate(s.values())), "flow.pt: holds no tensors by name, but 0, 1"),
        (lambda s: s | {f"generator.{NAME}": s[NAME]}, "flow.pt: holds tensors with and without 'generator.'"),
        (lambda s: {f"module.{n}": t for n, t in s.items()}, "found no such tensor in flow.pt"),
        (lambda s: s | {NAME: s[NAME].to(torch.float8_e4m3fn)}, f"{NAME}: is stored as float8_e4m3fn in flow.pt"),
        (lambda s: s | {NAME: s[NAME].to(torch.int8)}, "is stored as int8"),
        (lambda s: s | {NAME: s[NAME].to(torch.complex64)}, "is stored as complex64"),
        (lambda s: s | {NAME: torch.quantize_per_tensor(s[NAME], 0.1, 0, torch.qint8)}, "is stored as qint8"),
        (lambda s: s | {NAME: s[NAME].to_sparse()}, "is stored as sparse_coo"),
        (lambda s: s | {NAME + "_scale": torch.ones(1)}, "weight_scale: in flow.pt belongs to weights"),
        (lambda s: spoiled(s, float("nan")), f"{NAME}: holds numbers that are not finite in flow.pt"),
        (lambda s: spoiled(s, float("inf")), f"{NAME}: holds numbers that are not finite in flow.pt"),
    ],
)
def test_a_flow_that_is_no_plain_state_is_named(flow, state, tmp_path, change, words):
    torch.save(change(state), tmp_path / "flow.pt")
    with pytest.raises(BuildError, match=words) as caught:
        fitting_tensors(flow, tmp_path / "flow.pt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_plain_numbers_of_every_width_are_taken(flow, state, tmp_path, dtype):
    kept = OrderedDict((name, torch.nn.Parameter(tensor.to(dtype))) for name, tensor in state.items())
    torch.save(kept, tmp_path / "flow.pt")
    assert {t.dtype for t in fitting_tensors(flow, tmp_path / "flow.pt").values()} == {torch.float32}


def test_a_direction_of_zeros_is_named(tiny, tmp_path):
    vocoder, state = Vocoder(Token2WavConfig.read(tiny).hift), torch.load(tiny / "hift.pt", weights_only=True)
    state["conv_pre.parametrizations.weight.original1"].zero_()
    torch.save(state, tmp_path / "hift.pt")
    with pytest.raises(BuildError, match=r"conv_pre\.weight: holds numbers that are not finite in hift\.pt"):
        fitting_tensors(vocoder, tmp_path / "hift.pt")


def write_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme", "no tensors")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda p: p.write_bytes(b""), "cannot be read as plain tensors"),
        (lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid"), "only a pointer of Git LFS"),
        (write_zip, "cannot be read as plain tensors"),
        (lambda p: save_file({"a": torch.ones(1)}, p), "cannot be read as plain tensors"),
        (lambda p: p.write_bytes(pickle.dumps({"a": 1})), "holds a|cannot be read|holds no tensors"),
        (lambda p: np.savez(p.open("wb"), a=np.ones(2)), "cannot be read as plain tensors"),
        (lambda p: torch.save(torch.nn.Linear(2, 2), p), "it holds objects of torch.nn.modules.linear.Linear"),
        (lambda p: torch.save({"a": np.ones(2)}, p), "it holds objects of numpy"),
        (lambda p: p.mkdir(), "flow.pt: "),
        (lambda p: p.symlink_to(p), "flow.pt: "),
        (lambda p: p.symlink_to(p.parent / "nowhere"), "is a link to a file that is not there"),
        (lambda p: None, "flow.pt: not found"),
    ],
)
def test_files_of_other_kinds_are_named(flow, tmp_path, write, words):
    write(tmp_path / "flow.pt")
    with pytest.raises(BuildError, match=words) as caught:
        fitting_tensors(flow, tmp_path / "flow.pt")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# 语音\n".encode("gbk") + document().encode(), r"is not UTF-8 \(byte 0x\w\w in line 1\); save it as plain"),
        (document().encode("utf-16"), "is UTF-16"),
        (document().encode("utf-32"), "is UTF-32"),
        ((document() + "\nflow: 3\n").encode(), "is not YAML .*'flow' stands twice"),
        (b"a: *nothing", "is not YAML"),
        (b"when: 2001-99-99", "is not YAML"),
        (b"? [a, b]\n: 1", "cosyvoice3.yaml"),
        (b"[" * 5000, "is not YAML"),
        (b"a: \x07", "is not YAML"),
        (document().replace("depth: 3", "depth: 1000000000").encode(), "depth: is 1000000000"),
        (document().replace("audio_limit: 0.99", "audio_limit: .inf").encode(), "audio_limit: is inf"),
        (b"version https://git-lfs.github.com/spec/v1\n", "only a pointer of Git LFS"),
    ],
)
def test_a_yaml_that_cannot_be_used_is_named(tmp_path, text, words):
    (tmp_path / "cosyvoice3.yaml").write_bytes(text)
    with pytest.raises(BuildError, match=words) as caught:
        Token2WavConfig.read(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


def test_a_byte_order_mark_of_utf_8_does_no_harm(tmp_path):
    (tmp_path / "cosyvoice3.yaml").write_bytes(document().encode("utf-8-sig"))
    assert Token2WavConfig.read(tmp_path).flow.depth == 3


def voices_of(tmp_path, table):
    torch.save(table, tmp_path / "voices.pt")
    return read_voices(tmp_path, tmp_path / "voices.pt", WIDTH)


def test_numbers_as_names_are_their_digits(tmp_path):
    found = voices_of(tmp_path, {7: {"embedding": VECTOR}, "x": {"embedding": VECTOR}})
    assert list(found) == ["7", "x"]


def test_voices_of_cosyvoices_own_tool(tmp_path):
    made = {"llm_embedding": -VECTOR[None], "flow_embedding": VECTOR[None], "prompt_text": torch.ones(1, 3)}
    found = voices_of(tmp_path, {"good": {"embedding": VECTOR}, "mine": made})
    assert list(found) == ["good", "mine"] and torch.equal(found["mine"], VECTOR)


@pytest.mark.parametrize("given", [VECTOR, VECTOR[None], VECTOR[None, None], VECTOR.double(), VECTOR.tolist()])
def test_one_vector_in_any_usual_form_is_taken(tmp_path, given):
    [found] = voices_of(tmp_path, {"a": {"embedding": given}}).values()
    assert found.shape == (WIDTH,) and torch.allclose(found, VECTOR)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (VECTOR.view(2, 96), r"found float32 \[2, 96\]"),
        (torch.ones(100), r"found float32 \[100\]"),
        (torch.ones(WIDTH, dtype=torch.int64), "found int64"),
        (torch.zeros(WIDTH), "is zero or not finite"),
        (VECTOR / 0, "is zero or not finite"),
        (None, "found embedding in"),
        ("text", "found embedding in"),
        ([1, "x"], "found embedding in"),
    ],
)
def test_vectors_without_meaning_are_named(tmp_path, given, words):
    with pytest.raises(BuildError, match=rf"VOICES: a: .*{words}"):
        voices_of(tmp_path, {"a": {"embedding": given}})


def test_the_keys_that_were_found_are_named(tmp_path):
    with pytest.raises(BuildError, match="found llm_embedding, prompt_text in"):
        voices_of(tmp_path, {"a": {"llm_embedding": VECTOR, "prompt_text": 1}})


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\tb", "\x00", "é" * 129, None, True, 1.5, b"x", ("a",)])
def test_names_that_no_request_can_carry_are_refused(tmp_path, name):
    with pytest.raises(BuildError, match=r"VOICES: no request can ask for a voice named .*; name it with 1 to 256"):
        voices_of(tmp_path, {name: {"embedding": VECTOR}})


def test_names_that_become_the_same_are_refused(tmp_path):
    with pytest.raises(BuildError, match="names '7' twice"):
        voices_of(tmp_path, {7: {"embedding": VECTOR}, "7": {"embedding": VECTOR}})


@settings(max_examples=50, deadline=None)
@given(name=st.text(max_size=100))
def test_any_name_is_kept_or_refused(tmp_path_factory, name):
    folder = tmp_path_factory.mktemp("names")
    try:
        assert list(voices_of(folder, {name: {"embedding": VECTOR}})) == [name]
    except BuildError as error:
        assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.write_text(json.dumps({"a": {"embedding": [0.1] * WIDTH}})),
        lambda p: np.savez(p.open("wb"), a=np.ones(WIDTH)),
        lambda p: save_file({"a": VECTOR.contiguous()}, p),
        lambda p: torch.save([VECTOR], p),
        lambda p: torch.save({}, p),
        lambda p: torch.save({"a": {"embedding": np.ones(WIDTH)}}, p),
        lambda p: p.mkdir(),
        lambda p: p.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
    ],
)
def test_voices_in_other_kinds_of_files_are_named(tmp_path, write):
    path = tmp_path / "voices.pt"
    write(path)
    with pytest.raises(BuildError, match=r"VOICES") as caught:
        read_voices(tmp_path, path, WIDTH)
    assert len(str(caught.value).splitlines()) == 1
