"""Built folders: what is rebuilt, and what a server refuses."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from builders.__main__ import main as builders_main
from builders.build import _export_graphs
from builders.render import TWO_GPUS, render_repository
from builders.request import BuildRequest
from builders.steps import Builder
from client.__main__ import main as client_main
from client.protocol.version import VERSION
from runtime.checkpoint.features import FeatureConfig
from runtime.errors import BuildError
from runtime.frontend.options import EncoderOptions
from runtime.manifest import FileFacts, Manifest, verify
from runtime.options import Options
from runtime.supervisor.__main__ import main as supervisor_main


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "weights"
    path.write_text("one")
    return path


class Build:
    """Runs one step and counts how often it does the work."""

    def __init__(self, folder, checkpoint):
        self.folder, self.checkpoint, self.runs = folder, checkpoint, 0
        folder.mkdir(exist_ok=True)

    def work(self):
        self.runs += 1
        path = self.folder / "engine"
        path.write_text(self.checkpoint.read_text() + " built")
        return [path]

    def __call__(self, settings=None):
        try:
            old = Manifest.read(self.folder)
        except BuildError:
            old = Manifest("cpu", {"torch": "1"})
        builder = Builder(self.folder, old, lambda line: None)
        builder.step("engine", [self.checkpoint], ["builders/steps.py"], settings, self.work)
        builder.manifest.write(self.folder)
        return self.runs


@pytest.fixture
def build(tmp_path, checkpoint):
    return Build(tmp_path / "out", checkpoint)


def test_a_second_run_does_only_what_changed(build, checkpoint):
    assert build() == 1 and build() == 1
    checkpoint.write_text("other")
    assert build() == 2
    assert build(settings="other") == 3
    os.utime(checkpoint)  # touched, not changed
    assert build(settings="other") == 3
    (build.folder / "engine").write_text("damaged")
    assert build(settings="other") == 4


def test_a_good_folder_is_accepted(build):
    build()
    assert verify(build.folder).target == "cpu"


def test_the_manifest_holds_the_version_that_the_commands_show(build, capsys):
    build()
    for command in (builders_main, supervisor_main, client_main):
        with pytest.raises(SystemExit, match="0"):
            command(["--version"])
        assert capsys.readouterr().out.strip() == verify(build.folder).version == VERSION


def test_a_folder_of_an_earlier_format_is_refused_in_one_line_and_built_anew(build):
    """Version 0.1.0 wrote format 1, without a version."""
    build()
    path = build.folder / "manifest.json"
    earlier = {key: value for key, value in json.loads(path.read_text()).items() if key != "version"}
    path.write_text(json.dumps(earlier | {"format": 1, "target": "cuda"}))
    with pytest.raises(BuildError) as refused:
        verify(build.folder)
    assert str(refused.value) == (
        f"INTERNAL: manifest.json: has format 1, version {VERSION} of this program writes 2; run: make build-engines "
        f"TARGET=cuda OUT={build.folder} (with the same MODEL and COSYVOICE)"
    )
    assert build() == 2 and verify(build.folder).format == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: (b.folder / "engine").write_text("damaged"), r"engine, which has changed.*make build-engines"),
        (lambda b: (b.folder / "engine").unlink(), r"engine, which is missing"),
        (lambda b: b.checkpoint.write_text("another"), r"weights, which has changed"),
        (lambda b: (b.folder / "manifest.json").unlink(), r"manifest\.json: cannot be read.*make build-engines"),
        (lambda b: (b.folder / "manifest.json").write_text('{"format": 99}'), r"has format 99"),
    ],
)
def test_a_folder_that_does_not_match_is_refused(build, spoil, message):
    build()
    spoil(build)
    with pytest.raises(BuildError, match=message):
        verify(build.folder)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A build whose checkpoint lies in its folder, named as a shell in the folder above names it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "weights").write_text("one")
    build = Build(Path("out"), Path("out/weights"))
    build()
    return build


def test_a_folder_may_be_moved_and_served_from_anywhere(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert list(verify(tmp_path / "out").inputs) == ["weights"]
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    verify(moved)
    tiny.folder, tiny.checkpoint = moved, moved / "weights"
    assert tiny() == 1, "the step depends on no place"
    (moved / "weights").write_text("other")
    with pytest.raises(BuildError, match=r"moved/weights, which has changed"):
        verify(moved)


def test_a_checkpoint_elsewhere_is_found_from_anywhere(build, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build.checkpoint = Path("weights")
    build()
    monkeypatch.chdir("/")
    assert list(verify(build.folder).inputs) == [str(checkpoint)]
    build.checkpoint = Path("..").joinpath(*checkpoint.parts[1:])
    assert build() == 1


def test_names_of_an_older_build_lead_to_a_new_one(tiny, tmp_path):
    """They were relative to the directory of the shell that built."""
    path = tmp_path / "out" / "manifest.json"
    older = json.loads(path.read_text())
    older["inputs"] = {"out/weights": older["inputs"]["weights"]}
    older["steps"]["engine"]["key"] = "of other names"
    path.write_text(json.dumps(older))
    with pytest.raises(BuildError, match=r"out/out/weights, which is missing; run: make build-engines OUT=out"):
        verify(Path("out"))
    assert tiny() == 2
    assert list(verify(Path("out")).inputs) == ["weights"]


@pytest.mark.parametrize("name", ["MODEL", "COSYVOICE", "VOICES"])
def test_a_checkpoint_that_is_not_there_is_refused_before_the_first_step(tmp_path, checkpoint, name, capsys):
    given = {"MODEL": tmp_path, "COSYVOICE": tmp_path, "VOICES": checkpoint, name: tmp_path / "typo"}
    words = [word for option, path in given.items() for word in (f"--{option.lower()}", str(path))]
    assert builders_main(["build", "--out", str(tmp_path / "out"), *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"INTERNAL: {name}: {tmp_path}/typo is no ") and f"{name}=<" in error
    assert not (tmp_path / "out").exists()


def test_the_file_of_the_voices_is_needed_once(tmp_path, monkeypatch):
    """A container that serves sees an empty file in its place; other voices are other results."""
    done = []
    monkeypatch.setattr("builders.build.export_encoder", lambda *_: [])
    monkeypatch.setattr("builders.build.export_token2wav", lambda *_: done.append(1) or [])
    config, file = SimpleNamespace(directory=tmp_path), tmp_path / "voices.pt"
    (tmp_path / "config.json").touch()
    monkeypatch.setattr("builders.build.weight_files", lambda _: [])
    request = BuildRequest("cpu", tmp_path, tmp_path, tmp_path, file)

    def export(content, builds):
        file.write_text(content)
        builder = Builder(tmp_path, Manifest.read(tmp_path) if done else Manifest("cpu"), str)
        _export_graphs(request, builder, config, tmp_path)
        assert len(done) == builds and not any("voices" in name for name in builder.manifest.inputs)

    export("these", 1)
    export("these", 1)
    export("others", 2)
    file.write_text("")
    verify(tmp_path)


def test_options_round_trip_and_unknown_keys(tmp_path):
    options = Options(
        tmp_path, "model", FeatureConfig(16000, 128, 400, 160, 480000), EncoderOptions("e", 200, 10, 5, 64)
    )
    options.write()
    assert Options.read(tmp_path) == options
    text = (tmp_path / "options.json").read_text()
    (tmp_path / "options.json").write_text(text.replace('"max_waiting"', '"max_wating"'))
    with pytest.raises(BuildError, match=r"serving\.max_wating: is unknown"):
        Options.read(tmp_path)
    (tmp_path / "options.json").write_text(text.replace('"tokens_per_block": 32', '"tokens_per_block": -1'))
    with pytest.raises(BuildError, match="engine"):
        Options.read(tmp_path)


def test_a_placed_repository_is_this_programs_and_a_changed_one_is_not(tmp_path):
    builder = Builder(tmp_path, Manifest("tensorrt", {}), lambda line: None)
    builder.step("model repository", [], ["model_repository"], None, lambda: render_repository(tmp_path, TWO_GPUS))
    verify(tmp_path)
    path = tmp_path / "model_repository/flow/config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 0", "max_batch_size: 8"))
    builder.manifest.steps["model repository"].files["model_repository/flow/config.pbtxt"] = FileFacts.of(path)
    builder.manifest.write(tmp_path)
    with pytest.raises(BuildError, match=r"another version of this program \(model_repository/flow/config\.pbtxt"):
        verify(tmp_path)
