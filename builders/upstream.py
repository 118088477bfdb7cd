"""Real packages of others that tests load beside ours: fetched with pip, unpacked below ``.venv``, never installed.

``python -m builders.upstream`` fetches all. A test that needs one skips where it cannot be had, unless
``UPSTREAM_REQUIRED`` is set, as `make check-tensorrt` and continuous integration do.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".venv" / "upstream"
REQUIRED = "UPSTREAM_REQUIRED"
#: The smallest wheel of torch; its ``torch/onnx`` is the same Python on every platform.
ANY_PLATFORM = ("--platform", "macosx_11_0_arm64", "--python-version", "3.11", "--only-binary=:all:")


class CannotBeHad(Exception):
    """pip found no such wheel, or there is no network."""


@dataclass(frozen=True)
class Wheels:
    """``only``: what is unpacked, a prefix of names inside; ``options``: of pip."""

    requirements: tuple[str, ...]
    only: str = ""
    options: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        return FOLDER / "+".join(self.requirements)

    def fetch(self) -> Path:
        """The folder with the unpacked wheels, whole or not at all."""
        if self.folder.is_dir():
            return self.folder
        part = self.folder.with_name(self.folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(part / ".wheels")]
        done = subprocess.run([*pip, *self.options, *self.requirements], capture_output=True, text=True)
        if done.returncode:
            raise CannotBeHad(f"{' '.join(self.requirements)}: {done.stderr.strip().splitlines()[-1:]}")
        for wheel in (part / ".wheels").iterdir():
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    if member.filename.startswith(self.only):
                        _unpack(archive, member, part)
        shutil.rmtree(part / ".wheels")
        part.rename(self.folder)
        return self.folder


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    """With the member's permissions, which ``zipfile`` alone would not give it: Triton brings programs."""
    path = Path(archive.extract(member, folder))
    mode = member.external_attr >> 16 & 0o777
    if mode and path.is_file():
        path.chmod(mode)


def _extra(name: str) -> tuple[str, ...]:
    """The requirements of one of pyproject's extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return tuple(project["optional-dependencies"][name])


RTX = Wheels(_extra("tensorrt-rtx"))
BINDINGS = {version: Wheels((f"tensorrt-cu13-bindings=={version}",)) for version in ("10.14.1.48.post1", "11.4.0.106")}
EXPORTERS = {
    version: Wheels((f"torch=={version}",), only="torch/onnx/", options=ANY_PLATFORM) for version in ("2.9.1", "2.10.0")
}
TRITONS = {"3.5.1": Wheels(("triton==3.5.1",))}
ALL = (RTX, *BINDINGS.values(), *EXPORTERS.values(), *TRITONS.values())


if __name__ == "__main__":
    for wanted in ALL:
        print(wanted.fetch().relative_to(ROOT), flush=True)
