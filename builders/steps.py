"""Build steps that run only when something they depend on has changed."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BuildError
from runtime.manifest import PACKAGE_ROOT, FileFacts, Manifest, Step, place_of


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
        facts = {name: FileFacts.of(path, known.get(name)) for name, path in names.items()}
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
