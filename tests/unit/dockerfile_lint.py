"""A small linter of Dockerfiles: the rules of hadolint that matter here, and our own."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

INSTRUCTIONS = {
    "ARG",
    "FROM",
    "ENV",
    "WORKDIR",
    "COPY",
    "RUN",
    "USER",
    "EXPOSE",
    "STOPSIGNAL",
    "CMD",
    "ENTRYPOINT",
    "SHELL",
}


@dataclass(frozen=True)
class Instruction:
    line: int
    name: str
    text: str


def parse(text: str) -> list[Instruction]:
    """Instructions with continued lines joined; comments inside them are dropped, as Docker does."""
    found: list[Instruction] = []
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("#") or not line:
            continue
        start = start or number
        joined += line.removesuffix("\\") + " "
        if not line.endswith("\\"):
            name, _, rest = joined.strip().partition(" ")
            found.append(Instruction(start, name, rest.strip()))
            joined, start = "", 0
    return found


def arguments(instructions: list[Instruction]) -> dict[str, str]:
    return dict(i.text.split("=", 1) for i in instructions if i.name == "ARG" and "=" in i.text)


def base_image(instructions: list[Instruction], **given: str) -> str:
    """The image of FROM with defaults and given build arguments filled in."""
    values = arguments(instructions) | given
    (source,) = [i.text for i in instructions if i.name == "FROM"]
    # ${NAME:+word} first: its word holds a plain ${NAME}.
    source = re.sub(r"\$\{(\w+):\+((?:[^{}]|\{[^}]*\})*)\}", lambda m: m[2] if values.get(m[1]) else "", source)
    return re.sub(r"\$\{(\w+)\}", lambda m: values[m[1]], source)


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that matches it or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for pattern in patterns:
        shape = pattern.removeprefix("!").removeprefix("**/")
        names = parts if pattern.removeprefix("!").startswith("**/") else above[:1] if "/" not in shape else above
        if any(fnmatch(name, shape) for name in names):
            out = not pattern.startswith("!")
    return out


def lint(text: str, root: Path, ignore: list[str]) -> list[str]:
    """Everything that is wrong, each with its line."""
    instructions = parse(text)
    found: list[str] = []

    def complain(instruction: Instruction, problem: str) -> None:
        found.append(f"line {instruction.line}: {problem}")

    for item in instructions:
        if item.name not in INSTRUCTIONS:
            complain(item, f"{item.name} is not allowed")
        elif item.name == "COPY":
            *sources, _ = [part for part in shlex.split(item.text) if not part.startswith("--")]
            for source in sources:
                if not (root / source).exists():
                    complain(item, f"{source} does not exist")
                elif ignored(source, ignore):
                    complain(item, f"{source} is kept out by .dockerignore")
        elif item.name == "RUN":
            found += [f"line {item.line}: {problem}" for problem in run_problems(item.text, instructions)]
        elif item.name in ("CMD", "ENTRYPOINT"):
            if not is_exec_form(item.text):
                complain(item, f"{item.name} must be a JSON list")
        elif item.name == "WORKDIR" and not item.text.startswith("/"):
            complain(item, "WORKDIR must be absolute")
    return found + whole_problems(instructions)


def is_exec_form(text: str) -> bool:
    try:
        return isinstance(json.loads(text), list)
    except ValueError:
        return False


def run_problems(text: str, instructions: list[Instruction]) -> list[str]:
    found = []
    if re.search(r"\b(sudo|curl|wget|apt-get|apt|git clone)\b", text):
        found.append("RUN may not fetch or install system software")
    if re.search(r"[^|]\|[^|]", text) and not any(i.name == "SHELL" and "pipefail" in i.text for i in instructions):
        found.append("a pipe hides errors without pipefail")
    if ";" in text:
        found.append("join commands with &&: after ; a failure goes unnoticed")
    for command in text.split("&&"):
        if "pip install" in command:
            found += [f"pip install without {o}" for o in ("--no-cache-dir", "--no-deps") if o not in command]
            if re.search(r"install\s+(-\S+\s+)*[a-zA-Z]", command):
                found.append("pip install of a name without a pinned requirements file")
    return found


def whole_problems(instructions: list[Instruction]) -> list[str]:
    found = []
    image = base_image(instructions)
    name, _, tag = image.rpartition(":")
    if not name or tag in ("", "latest"):
        found.append(f"image {image} has no pinned tag")
    users = [i.text for i in instructions if i.name == "USER"]
    if not users or users[-1].split(":")[0] in ("0", "root"):
        found.append("the container runs as root")
    order = [i.name for i in instructions]
    if "USER" in order and "RUN" in order[order.index("USER") :]:
        found.append("RUN after USER: the package would be writable by the server")
    return found
