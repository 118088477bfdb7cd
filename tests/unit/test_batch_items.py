"""Folders and manifests as lists of requests."""

from __future__ import annotations

import json

import pytest

from client import ChatError
from client.batch_items import read_items


def manifest(tmp_path, *lines):
    path = tmp_path / "questions.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_a_folder_keeps_the_way_to_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/x.wav", "x.FLAC", "notes.txt"):
        (tmp_path / name).touch()
    assert [(item.id, item.audio.name) for item in read_items(tmp_path)] == [("a__x", "x.wav"), ("x", "x.FLAC")]


def test_a_manifest(tmp_path):
    path = manifest(tmp_path, {"id": "one", "audio": "q.wav", "parameters": {"seed": 1}}, "", {"text": "hi"})
    one, two = read_items(path)
    assert (one.id, one.audio, one.parameters) == ("one", tmp_path / "q.wav", {"seed": 1})
    assert (two.id, two.text) == ("000003", "hi")


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
    ],
)
def test_what_is_wrong_is_named(tmp_path, lines, words):
    with pytest.raises(ChatError, match=words):
        read_items(manifest(tmp_path, *lines))


def test_no_such_source(tmp_path):
    with pytest.raises(ChatError, match="neither a folder nor"):
        read_items(tmp_path / "none")
