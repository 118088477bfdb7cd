"""Folders and manifests as lists of requests."""

from __future__ import annotations

import json

import pytest

from client import ChatError
from client.batch_items import Item, passed_over, read_items


def manifest(tmp_path, *lines):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def read(source):
    return read_items(source, source.parent / "results")


def test_a_folder_keeps_the_way_to_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/x.wav", "x.FLAC", "notes.txt"):
        (tmp_path / name).touch()
    assert [(item.id, item.audio.name) for item in read(tmp_path)] == [("a__x", "x.wav"), ("x", "x.FLAC")]


def test_a_manifest(tmp_path):
    path = manifest(tmp_path, {"id": "one", "audio": "q.wav", "parameters": {"seed": 1}}, "", {"text": "hi"})
    one, two = read(path)
    assert (one.id, one.audio, one.parameters) == ("one", tmp_path / "q.wav", {"seed": 1})
    assert (two.id, two.text) == ("000003", "hi")


def test_a_folder_without_hidden_files_folders_and_results(tmp_path):
    for name in ("x.wav", "._x.wav", ".trash/y.wav", "results/x.wav", "results/more/z.wav"):
        path = tmp_path / "questions" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "questions" / "folder.wav").mkdir()
    found = read_items(tmp_path / "questions", tmp_path / "questions" / "results")
    assert [item.id for item in found] == ["x"]
    assert len(read_items(tmp_path / "questions", tmp_path)) == 3, "questions may lie below the folder of results"


def test_null_is_absent(tmp_path):
    line = {"id": None, "audio": None, "text": "hi", "messages": None, "parameters": None}
    assert read(manifest(tmp_path, line)) == [Item("000001", text="hi")]


def test_only_line_feeds_end_a_line(tmp_path):
    path = tmp_path / "questions.jsonl"
    text = "a\u2028b\u2029c\x85d"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps({"text": text}, ensure_ascii=False).encode() + b"\r\n")
    assert [item.text for item in read(path)] == [text]


def test_a_binary_file_is_no_manifest(tmp_path):
    (tmp_path / "question.wav").write_bytes(b"RIFF\xff\xfe")
    with pytest.raises(ChatError, match=r"batch: .*cannot be read as text.*JSONL manifest"):
        read(tmp_path / "question.wav")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["{"], "line 1"),
        (['{"text": "a"}', "[]"], "line 2: is no JSON object"),
        ([{"txt": "a"}], "'txt' is none of"),
        ([{"id": "../x", "text": "a"}], "is no file name"),
        ([{"id": "x"}], "has no audio"),
        ([{"id": "x", "text": "a"}, {"id": "x", "text": "b"}], "comes twice"),
        ([], "nothing to ask"),
        ([{"id": "a\ud800", "text": "a"}], "is no file name"),
        ([{"id": "a\0", "text": "a"}], "is no file name"),
        ([{"id": "x", "audio": None, "text": None, "messages": None}], "has no audio"),
        (['{"messages": ' + "[" * 100_000], "line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, lines, words):
    with pytest.raises(ChatError, match=words):
        read(manifest(tmp_path, *lines))


def test_no_such_source(tmp_path):
    with pytest.raises(ChatError, match="neither a folder nor"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", [1]), ("audio", 5), ("audio", ["a.wav"]), ("messages", 5), ("messages", {"role": "user"}),
     ("parameters", [1]), ("parameters", "seed=1")],
)  # fmt: skip
def test_values_of_wrong_kinds_are_named(tmp_path, field, value):
    with pytest.raises(ChatError, match=rf"line 1: {field} has type {type(value).__name__}"):
        read(manifest(tmp_path, {"text": "x", field: value}))


def test_a_name_that_no_result_file_can_have(tmp_path):
    with pytest.raises(ChatError, match="is no file name of at most 240 bytes"):
        read(manifest(tmp_path, {"id": "\u4f60" * 81, "text": "x"}))
    folder = tmp_path / "questions"
    for part in ("a" * 150, "b" * 150):
        folder /= part
    folder.mkdir(parents=True)
    (folder / "x.wav").touch()
    with pytest.raises(ChatError, match="rename the file"):
        read(tmp_path / "questions")


def test_links_that_lead_to_no_file_are_named(tmp_path):
    folder, elsewhere = tmp_path / "questions", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "x.wav").touch()
    (folder / "y.wav").symlink_to(folder / "gone.wav")
    (folder / "more").symlink_to(elsewhere)
    assert [item.id for item in read(folder)] == ["x", "y"], "the second one fails by its name"
    assert [path.name for path in passed_over(folder, tmp_path / "results")] == ["more"]
