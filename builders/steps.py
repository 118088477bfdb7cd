"""Build steps that run only when something they depend on has changed."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from runtime.checkpoint.files import reason
from runtime.checkpoint.weights import check_finite, weight_files
from runtime.errors import BuildError
from runtime.families.fun_audio_chat.config import CONFIG_FILE, ModelConfig
from runtime.families.fun_audio_chat.tensors import backbone_shapes, encoder_shapes, speech_shapes
from runtime.manifest import PACKAGE_ROOT, FileFacts, Manifest, Step, place_of

PROBE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class BuildStep:
    """A step as a value; fields as the arguments of ``Builder.step``."""

    name: str
    inputs: Sequence[Path]
    sources: Sequence[str]
    settings: object
    outputs: Callable[[], list[Path]]


class Builder:
    """Runs the steps of one folder and keeps its manifest.

    Args:
        folder: what is built.
        manifest: of an earlier build, or an empty one.
        say: takes one line of progress.
    """

    def __init__(self, folder: Path, manifest: Manifest, say: Callable[[str], None]) -> None:
        self.folder, self.say = folder, say
        self._old, self.manifest = manifest, Manifest(manifest.target, manifest.versions, manifest.gpu)

    def step(
        self,
        name: str,
        inputs: Iterable[Path],
        sources: Sequence[str],
        settings: object,
        outputs: Callable[[], list[Path]],
    ) -> None:
        """Runs ``outputs`` unless an earlier run had the same inputs, code and settings and its files are intact.

        Args:
            inputs: files of a checkpoint.
            sources: modules or folders of this package that decide the result.
            settings: anything else that does; its ``repr`` counts.
            outputs: does the work and returns the files written.
        """
        # A file that several steps read is hashed once: the released weights are 19 GB.
        known = self._old.inputs | self.manifest.inputs
        names = {place_of(path, self.folder): path for path in inputs}
        with _naming_place(name, self.folder):
            facts = {place: FileFacts.of(path, known.get(place)) for place, path in names.items()}
        self.manifest.inputs |= facts
        parts = [name, repr(settings), *(f"{k}={v.sha256}" for k, v in sorted(facts.items())), *_hash_sources(sources)]
        parts += [f"{k}={v}" for k, v in sorted(self.manifest.versions.items())]
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        old = self._old.steps.get(name)
        if old is not None and old.key == key and self._intact(old):
            self.manifest.steps[name] = old
            self.say(f"{name}: unchanged")
            return
        self.say(f"{name}: building")
        began = time.monotonic()
        with _naming_place(name, self.folder):
            written = {str(p.relative_to(self.folder)): FileFacts.of(p) for p in outputs()}
            self.manifest.steps[name] = Step(key, written)
            # Written after every step: an interrupted build goes on where it stopped.
            self.manifest.write(self.folder)
        size = sum(f.size for f in written.values()) / 1e6
        self.say(f"{name}: {len(written)} files, {size:.1f} MB, {time.monotonic() - began:.1f} s")

    def run(self, step: BuildStep) -> None:
        """Runs a step that is given as a value."""
        self.step(step.name, step.inputs, step.sources, step.settings, step.outputs)

    def _intact(self, step: Step) -> bool:
        paths = {self.folder / name: facts for name, facts in step.files.items()}
        return all(path.exists() and FileFacts.of(path, facts).sha256 == facts.sha256 for path, facts in paths.items())


def prepare_folder(folder: Path) -> Path:
    """Makes the folder to write and tries it: a step may take an hour before it writes.

    Raises:
        BuildError: it cannot be made, or nothing can be written in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(PROBE_BYTES))
    except OSError as error:
        raise BuildError("OUT", f"{folder} cannot be written ({reason(error)})", "choose another OUT") from None
    return folder


def weights_step(config: ModelConfig, dtype: str) -> BuildStep:
    """Reads every weight once and finds the numbers that are none; skipped while the files stay as they are.

    Args:
        dtype: in which the language engines hold them.
    """
    language, hidden = backbone_shapes(config) | speech_shapes(config), config.backbone.hidden_size

    def check() -> list[Path]:
        check_finite(config.directory, language, getattr(torch, dtype))
        check_finite(config.directory, encoder_shapes(config.encoder, hidden), torch.float32)
        return []

    inputs = [config.directory / CONFIG_FILE, *weight_files(config.directory)]
    return BuildStep("weights", inputs, ["runtime/checkpoint"], dtype, check)


@contextmanager
def _naming_place(step: str, folder: Path) -> Iterator[None]:
    """Turns what the file system or a lost worker process says into one line."""
    try:
        yield
    except OSError as error:
        place = error.filename or folder
        raise BuildError(step, f"{place}: {reason(error)}", "see that the disk has room and may be written") from None
    except (BrokenExecutor, MemoryError) as error:
        problem = f"a process of it was lost ({reason(error)})"
        raise BuildError(step, problem, "it may have needed more memory than there is: give it more") from None


def _hash_sources(names: Sequence[str]) -> list[str]:
    lines = []
    for name in names:
        path = PACKAGE_ROOT / name
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        if not path.exists():
            raise BuildError(name, "is not part of this package", "reinstall it with make setup")
        files = [f for f in files if f.is_file() and "__pycache__" not in f.parts]
        lines += [f"{f.relative_to(PACKAGE_ROOT)}={hashlib.sha256(f.read_bytes()).hexdigest()}" for f in files]
    return lines
