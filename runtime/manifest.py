"""What a rendered folder was made from, and whether it still is what it says. Written by builders."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from client.protocol.version import VERSION
from runtime.errors import BuildError

MANIFEST_FILE = "manifest.json"
FORMAT = 2  # raise when a folder of an older format can no longer be served; 2: the version of the builder, 0.2.0
HASH_BLOCK = 1 << 22
PACKAGE_ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "model_repository"
# Another distribution with the same module, which an operator may have put in its place.
REPLACEMENTS = {"onnxruntime": "onnxruntime-gpu"}
PLACE = b"instance_group "  # begins the line of a configuration that says where its model runs


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Size in bytes, time stamp in ns and SHA-256 of a file."""

    size: int
    mtime_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, known: FileFacts | None = None) -> FileFacts:
        """Facts of a file; its content is read only when size or time stamp differ from ``known``."""
        stat = path.stat()
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return known
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
        return cls(stat.st_size, stat.st_mtime_ns, digest.hexdigest())


@dataclass(slots=True)
class Step:
    """One build step: the key of everything it depends on, and the files that it wrote."""

    key: str
    files: dict[str, FileFacts]


@dataclass(slots=True)
class Manifest:
    """``inputs`` by ``place_of`` the folder, ``steps`` by name with files relative to it, ``version`` of the code."""

    target: str
    versions: dict[str, str] = field(default_factory=dict)
    gpu: str | None = None
    format: int = FORMAT
    version: str = VERSION
    inputs: dict[str, FileFacts] = field(default_factory=dict)
    steps: dict[str, Step] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises BuildError when the folder holds no readable manifest of this format."""
        try:
            values = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
            if values["format"] != FORMAT:
                problem = f"has format {values['format']}, version {VERSION} of this program writes {FORMAT}"
                raise _stale(problem, folder, f"TARGET={values['target']} " if "target" in values else "")
            values["inputs"] = {name: FileFacts(**facts) for name, facts in values["inputs"].items()}
            values["steps"] = {
                name: Step(step["key"], {file: FileFacts(**facts) for file, facts in step["files"].items()})
                for name, step in values["steps"].items()
            }
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _stale(f"cannot be read ({type(error).__name__}: {error})", folder) from None

    def write(self, folder: Path) -> None:
        """Writes the manifest so that a reader sees the old one or the new one, never a part."""
        temporary = folder / (MANIFEST_FILE + ".new")
        temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")
        temporary.replace(folder / MANIFEST_FILE)


def place_of(path: Path, folder: Path) -> str:
    """The name of a file or directory: relative where the folder holds it, so that it may be moved, else absolute.

    Depends on no working directory; directories are known by where they really lie.
    """
    real = path.parent.resolve() / path.name
    inside = folder.resolve()
    return str(real.relative_to(inside) if real.is_relative_to(inside) else real)


def verify(folder: Path) -> Manifest:
    """Checks that a folder is complete and still matches the checkpoints that it was built from.

    Raises:
        BuildError: naming the file at fault and the command that mends it.
    """
    manifest = Manifest.read(folder)
    for step in manifest.steps.values():
        for name, facts in step.files.items():
            _check(folder, folder / name, facts)
            _check_render(folder, name, facts)
    for name, facts in manifest.inputs.items():
        _check(folder, folder / name, facts)
    return manifest


def _check_render(folder: Path, name: str, facts: FileFacts) -> None:
    """A rendered model must be the one that belongs to this program; only its place is the folder's own."""
    source = PACKAGE_ROOT / name
    if not name.startswith(REPOSITORY) or not source.exists() or FileFacts.of(source).sha256 == facts.sha256:
        return
    if _without_place(source) != _without_place(folder / name):
        raise _stale(f"was written by another version of this program ({name} differs)", folder)


def _without_place(path: Path) -> list[bytes]:
    """Lines of a file except those that ``builders.render`` writes."""
    return [line for line in path.read_bytes().splitlines() if not line.startswith(PLACE)]


def _check(folder: Path, path: Path, facts: FileFacts) -> None:
    try:
        if not path.exists():
            raise _stale(f"names {path}, which is missing", folder)
        found = FileFacts.of(path, facts)
    except OSError as error:
        raise _stale(f"names {path}, which cannot be read ({error.strerror})", folder) from None
    if found.sha256 != facts.sha256:
        raise _stale(f"names {path}, which has changed since", folder)


def _stale(problem: str, folder: Path, target: str = "") -> BuildError:
    command = f"make build-engines {target}OUT={folder} (with the same MODEL and COSYVOICE)"
    return BuildError(MANIFEST_FILE, problem, f"run: {command}")


def installed(name: str) -> str:
    """Version of a distribution, or of the one that replaces it. Raises PackageNotFoundError."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if name not in REPLACEMENTS:
            raise
        return importlib.metadata.version(REPLACEMENTS[name])
