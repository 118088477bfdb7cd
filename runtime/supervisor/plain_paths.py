"""Paths as Triton's Python backend can bear them: a folder of links in place of those that it cannot.

Triton starts every stub with `bash -c "exec <stub> <model.py> ..."` without quotes, and the Python inside a stub takes
file names for ASCII whatever the locale says. A built folder, a checkpoint or a virtual environment may lie anywhere,
so where one of their paths holds more than letters, digits and a few signs, tritonserver is pointed at a folder of
links with a plain path. It also holds the run folder of a built folder that nothing may be written to.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shutil
import site
import stat
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.manifest import PACKAGE_ROOT
from runtime.run_folder import RUN_FOLDER, replace_text
from runtime.supervisor.bundle import TritonInstall
from runtime.supervisor.errors import UnusablePath

PLAIN = re.compile(r"[A-Za-z0-9_./+@,=-]+")  # what a shell takes as it stands and ASCII can spell
OPTIONS_FILE = "options.json"
CHECKPOINTS = ("model", "cosyvoice")  # keys of the options file that name folders
NAME_HEAD, DIGEST_CHARACTERS = "fun-audio-chat", 16
PRIVATE = 0o700
FALLBACK_FOLDERS = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))
VENV, BASE, BACKENDS, PACKAGES = "venv", "python", "backends", "packages"


def is_plain(path: Path | str) -> bool:
    """Whether Triton's Python backend can be given this path."""
    return PLAIN.fullmatch(str(path)) is not None


@dataclass(frozen=True, slots=True)
class PlainPaths:
    """What tritonserver is given: a built folder and an installation whose paths are plain.

    ``links``: the folder of links, None where there is no need of one.
    """

    out: Path
    install: TritonInstall
    links: Path | None = None

    def remove(self) -> None:
        """Removes the links, never what they lead to."""
        if self.links is not None:
            shutil.rmtree(self.links, ignore_errors=True)


def plain_paths(out: Path, install: TritonInstall) -> PlainPaths:
    """A built folder and tritonserver by paths that its Python backend can bear.

    Args:
        out: the built folder, absolute.

    Raises:
        UnusablePath: links are needed and no folder for temporary files has a plain path.
    """
    options = _read_options(out)
    folder_needed = not is_plain(out) or bool(_odd_checkpoints(options)) or not _takes_run_folder(out)
    python_needed = not all(is_plain(path) for path in (sys.prefix, sys.base_prefix, PACKAGE_ROOT))
    backends = install.backend_directory
    backends_needed = backends is not None and not is_plain(backends)
    if not (folder_needed or python_needed or backends_needed):
        return PlainPaths(out, install)
    links = _links_folder(out)
    if folder_needed:
        out = _mirror(out, options, links / "built")
    if backends_needed and backends is not None:
        install = dataclasses.replace(install, backend_directory=_link(links / BACKENDS, backends))
    if python_needed:
        install = dataclasses.replace(install, environment={**install.environment, **_plain_python(links)})
    return PlainPaths(out, install, links)


def _read_options(out: Path) -> dict[str, object]:
    """Empty where the file is missing or damaged, which the checks of a start report in words of their own."""
    try:
        options = json.loads((out / OPTIONS_FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return options if isinstance(options, dict) else {}


def _odd_checkpoints(options: Mapping[str, object]) -> dict[str, str]:
    """The checkpoint folders that need a link, by their key."""
    found = {key: options.get(key) for key in CHECKPOINTS}
    return {key: path for key, path in found.items() if isinstance(path, str) and path and not is_plain(path)}


def _takes_run_folder(out: Path) -> bool:
    run = out / RUN_FOLDER
    return os.access(run if run.exists() else out, os.W_OK | os.X_OK)


def _mirror(out: Path, options: dict[str, object], mirror: Path) -> Path:
    """A folder of links to the entries of the built one and to its checkpoints, with a run folder that takes files."""
    mirror.mkdir(mode=PRIVATE, exist_ok=True)
    odd = _odd_checkpoints(options)
    own = {OPTIONS_FILE} if odd else set()
    own |= set() if _takes_run_folder(out) else {RUN_FOLDER}
    if _takes_run_folder(out):
        (out / RUN_FOLDER).mkdir(exist_ok=True)
    for entry in out.iterdir():
        if entry.name not in own and is_plain(entry.name):
            _link(mirror / entry.name, entry)
    for key, path in odd.items():
        options = {**options, key: _link(mirror / f"checkpoint_{key}", out / path).name}
    if odd:
        replace_text(mirror / OPTIONS_FILE, json.dumps(options, indent=1))
    return mirror


def _plain_python(links: Path) -> dict[str, str]:
    """Variables that lead a stub to this interpreter and its packages by plain paths.

    A virtual environment of its own, whose one `.pth` file names the real packages by links: an editable
    installation would find them by their true path, which the stub's Python cannot spell.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = _link(links / BASE, Path(sys.base_prefix))
    venv = links / VENV
    (venv / "bin").mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    packages = venv / "lib" / version / "site-packages"
    packages.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3", version):
        _link(venv / "bin" / name, Path(sys.executable))
    replace_text(venv / "pyvenv.cfg", f"home = {base}/bin\ninclude-system-site-packages = false\n")
    lines = [str(_link(links / PACKAGES, PACKAGE_ROOT))]
    for number, folder in enumerate(path for path in _site_folders() if path.is_dir()):
        lines.append(f"import site; site.addsitedir({str(_link(links / f'site{number}', folder))!r})")
    replace_text(packages / "plain.pth", "\n".join(lines) + "\n")
    search = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", os.defpath)])
    return {"PATH": search, "VIRTUAL_ENV": str(venv)}


def _site_folders() -> Iterable[Path]:
    user = [site.getusersitepackages()] if site.ENABLE_USER_SITE else []
    return [Path(folder) for folder in (*site.getsitepackages(), *user)]


def _links_folder(out: Path) -> Path:
    """A private folder for the links of one built folder, the same at every start; what was in it goes."""
    digest = hashlib.sha256(os.fsencode(os.path.realpath(out))).hexdigest()[:DIGEST_CHARACTERS]
    name = f"{NAME_HEAD}-{os.getuid()}-{digest}"
    tried = dict.fromkeys([Path(tempfile.gettempdir()), *FALLBACK_FOLDERS])
    for parent in filter(is_plain, tried):
        made = parent / name
        try:
            made.mkdir(mode=PRIVATE, exist_ok=True)
            found = made.lstat()
        except OSError:
            continue
        # Others may write to the folder for temporary files: a folder that is not ours alone is no place for links.
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return made
    raise UnusablePath(
        "OUT",
        f"{out}, its checkpoints or this Python lie where Triton's Python backend cannot read, and none of "
        f"{', '.join(map(str, tried))} takes links to them",
        "give TMPDIR a folder that can be written to, with a path of letters, digits and _./+@,=-",
    )


def _link(link: Path, target: Path) -> Path:
    """Makes or renews a link."""
    target = target.absolute()
    if link.is_symlink() and Path(os.readlink(link)) == target:
        return link
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    if link.is_dir() and not link.is_symlink():  # of a start that needed more
        shutil.rmtree(link)
    fresh.replace(link)
    return link
