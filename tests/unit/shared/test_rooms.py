"""The plan of the house: rooms know only rooms below them, a family is known in its folder only, words are plain."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.families.registry import FAMILIES

ROOT = Path(__file__).parents[3]
# From the ground up. A file belongs to the longest name that it begins with; a room imports lower floors only.
FLOORS = (
    ("client.protocol", "kernels", "runtime", "runtime.heap", "runtime.logs", "runtime.playback", "runtime.products"),
    ("client", "runtime.contracts", "runtime.errors"),
    ("runtime.checkpoint", "runtime.graphs", "runtime.manifest", "runtime.params", "runtime.run_folder"),
    ("runtime.engines", "runtime.frontend", "runtime.token2wav"),
    ("runtime.engines.trtllm", "runtime.requests", "runtime.scheduling"),
    ("runtime.frames", "runtime.options"),
    ("runtime.families",),
    ("runtime.opening", "runtime.serving"),
    ("builders", "runtime.tritonserver"),
    ("runtime.supervisor",),
    ("benchmarks",),
    ("scripts",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# What only a family may name: its parts, its ids, its rate.
OF_A_FAMILY = re.compile(r"(?i)backbone|speech_?head|codebook|audio_[be]os|speech_?ids|frame_s\Z|text_?ids")
PLAIN = {"text_ids", "speech_token_ids", "text_token_ids"}  # outputs of the protocol
PRIVATE = re.compile(r"(?i)\b(nobody|somebody|whoever)\b")
SEE = re.compile(r'"""See ``[\w.]+``\."""')


def product() -> list[Path]:
    folders = ("benchmarks", "builders", "client", "kernels", "model_repository", "runtime", "scripts")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts]


def module(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__").removesuffix(".__main__")


def room(name: str) -> str:
    """The room of a module."""
    found = [one for one in FLOOR if name == one or name.startswith(f"{one}.")]
    assert found, f"{name} has no room"
    return max(found, key=len)


def imported(path: Path) -> Iterator[str]:
    """Our own modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module(path).split(".") if path.name == "__init__.py" else module(path).split(".")[:-1]
            above = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield whole if (ROOT / whole.replace(".", "/")).with_suffix(".py").exists() else base


def test_rooms_import_lower_floors_only():
    tops = {one.partition(".")[0] for one in FLOOR}
    wrong = []
    for path in product():
        if path.parts[len(ROOT.parts)] == "model_repository":
            continue
        here = room(module(path))
        for name in imported(path):
            there = room(name) if name.partition(".")[0] in tops else here
            if there != here and FLOOR[there] >= FLOOR[here]:
                wrong.append(f"{path.relative_to(ROOT)} ({here}) imports {name} ({there})")
    assert not wrong, "\n".join(wrong)


def test_a_room_above_would_be_seen():
    assert FLOOR[room("runtime.serving.door")] > FLOOR[room("runtime.scheduling.stream")] > FLOOR[room("kernels.ops")]
    assert "runtime.families.base" in set(imported(ROOT / "runtime" / "serving" / "door.py"))


def below_families() -> list[Path]:
    """Files of the runtime that are in no family's folder."""
    folders = {ROOT / "runtime" / "families" / folder for folder in FAMILIES.values()}
    return [path for path in sorted((ROOT / "runtime").rglob("*.py")) if not folders & set(path.parents)]


def names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.FunctionDef | ast.ClassDef | ast.arg | ast.Attribute):
            yield getattr(node, "id", None) or getattr(node, "name", None) or getattr(node, "arg", None) or node.attr
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            yield node.value


@pytest.mark.parametrize("path", below_families(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_family_is_known_in_its_folder_only(path):
    folders = tuple(f"runtime.families.{folder}" for folder in FAMILIES.values())
    assert not [name for name in imported(path) if name.startswith(folders)]
    if path.name == "base.py" and path.parent.name == "families":
        return  # it says what a family answers
    found = {name for name in names(ast.parse(path.read_text())) if OF_A_FAMILY.search(name)} - PLAIN
    assert not found - {"frame_s"}, f"only a family knows {', '.join(sorted(found))}"


@pytest.mark.parametrize("pattern", [PRIVATE, SEE], ids=["words", "docstrings"])
def test_words_are_plain(pattern):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in product()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, "\n".join(found)
