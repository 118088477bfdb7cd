"""The Dockerfile against the facts that it repeats; `make check` runs hadolint on it."""

import json
import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

from runtime.engines.trtllm.pins import TENSORRT_LLM
from runtime.supervisor.__main__ import parser as server_parser
from runtime.supervisor.config import Addresses

ROOT = Path(__file__).parents[3]
CONTRACT = json.loads((ROOT / "tests/contracts/tensorrt_llm_1_2_1.json").read_text())
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text("utf-8")
IGNORE = [s for s in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if s and not s.startswith("#")]
KNOWN = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "CMD"}


def instructions(text=DOCKERFILE):
    """Pairs of name and text, with continued lines joined and comments dropped, as Docker does."""
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^\s*(#.*)?\n", "", text, flags=re.M))
    return [tuple(line.split(" ", 1)) for line in joined.splitlines()]


def texts(name, text=DOCKERFILE):
    return [rest for found, rest in instructions(text) if found == name]


def copied(text=DOCKERFILE):
    return {source for line in texts("COPY", text) for source in shlex.split(line)[:-1]}


def ignored(path):
    """Whether .dockerignore keeps a path out: the last pattern that matches it or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for pattern in IGNORE:
        shape = pattern.removeprefix("!").removeprefix("**/")
        names = parts if pattern.removeprefix("!").startswith("**/") else above[:1] if "/" not in shape else above
        if any(fnmatch(name, shape) for name in names):
            out = not pattern.startswith("!")
    return out


def broken_rules(text):
    """Our own rules, beyond those of hadolint."""
    order = [name for name, _ in instructions(text)]
    commands = [command for run in texts("RUN", text) for command in run.split("&&")]
    installs = [command for command in commands if "pip install" in command]
    rules = {
        "an instruction that we do not use": set(order) <= KNOWN,
        "a source that does not exist": all((ROOT / source).exists() for source in copied(text)),
        "a source that .dockerignore keeps out": not any(map(ignored, copied(text))),
        "RUN fetches system software": not any(
            re.search(r"\b(sudo|curl|wget|apt-get|apt|git clone)\b", command) for command in commands
        ),
        "a failure before ; goes unnoticed": not any(";" in command for command in commands),
        "pip install may change the image": all("--no-deps" in command for command in installs),
        "pip install of a name": not any(re.search(r"install\s+(-\S+\s+)*[a-zA-Z]", command) for command in installs),
        "root serves": texts("USER", text)[-1:] == ["1000:1000"],
        "the server may write to the package": "USER" not in order or "RUN" not in order[order.index("USER") :],
    }
    return {rule for rule, kept in rules.items() if not kept}


def test_the_dockerfile_keeps_our_rules():
    assert broken_rules(DOCKERFILE) == set()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("USER 1000:1000", "USER 0:0", "root serves"),
        ("USER 1000:1000\n", "", "root serves"),
        ("COPY kernels kernels", "COPY kernels2 kernels", "a source that does not exist"),
        ("COPY kernels kernels", "COPY tests tests", "a source that .dockerignore keeps out"),
        ("--no-deps --requirement", "--requirement", "pip install may change the image"),
        ("--editable .", "numpy", "pip install of a name"),
        ("rm /tmp/missing.txt", "apt-get install -y curl", "RUN fetches system software"),
        ("> /tmp/missing.txt", "; true", "a failure before ; goes unnoticed"),
        ("WORKDIR /opt", "ADD . /opt", "an instruction that we do not use"),
        ("EXPOSE", "RUN true\nEXPOSE", "the server may write to the package"),
    ],
)
def test_faults_are_found(old, new, fault):
    assert old in DOCKERFILE
    assert fault in broken_rules(DOCKERFILE.replace(old, new))


def test_the_image_is_the_pinned_one_and_its_digest_an_argument():
    assert texts("ARG") == [f"IMAGE={CONTRACT['versions']['triton_images'][0]}", "IMAGE_DIGEST="]
    assert texts("FROM") == ["${IMAGE}${IMAGE_DIGEST:+@${IMAGE_DIGEST}}"]
    assert CONTRACT["versions"]["tensorrt_llm"] == TENSORRT_LLM


def test_everything_that_the_package_needs_is_copied_and_nothing_else_is_sent():
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "scripts", "benchmarks"}
    assert packages | {"model_repository", "pyproject.toml", "README.md"} <= copied()
    for name in ("tests", ".git", "build", ".venv", "Makefile", "runtime/engines/__pycache__"):
        assert ignored(name), name
    for name in ("runtime/engines/base.py", "model_repository/flow/1/model.py", "docker/requirements.txt"):
        assert not ignored(name), name


def test_the_default_command_is_one_of_the_server():
    (command,) = map(json.loads, texts("CMD"))
    assert command[:3] == ["python3", "-m", "runtime.supervisor"]
    assert str(server_parser().parse_args(command[3:]).out) == "/engines"
    (exposed,) = [text.split() for text in texts("EXPOSE")]
    assert sorted(map(int, exposed)) == sorted(Addresses().ports().values())
