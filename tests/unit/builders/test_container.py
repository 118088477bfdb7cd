"""Dockerfile, compose file and image check against the facts that they repeat."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml
from dockerfile_lint import arguments, base_image, ignored, lint, parse

from builders.__main__ import parser as builders_parser
from builders.parity.__main__ import parser as parity_parser
from runtime.engines.trtllm.pins import TENSORRT_LLM
from runtime.supervisor.__main__ import parser as server_parser
from runtime.supervisor.config import Addresses, Patience

ROOT = Path(__file__).parents[3]
CONTRACT = json.loads((ROOT / "tests/contracts/tensorrt_llm_1_2_1.json").read_text())
DOCKERFILE = (ROOT / "docker/Dockerfile").read_text("utf-8")
IGNORE = [s for s in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if s and not s.startswith("#")]
KILL_S = 5.0  # what is left of the group after its patience is killed within this (runtime.supervisor.process)
GIVEN = {"MODEL": "/data/chat", "COSYVOICE": "/data/voice"}


# --- Dockerfile


def test_the_dockerfile_has_no_faults():
    assert lint(DOCKERFILE, ROOT, IGNORE) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (":26.04-trtllm-python-py3", ":latest", "no pinned tag"),
        (":26.04-trtllm-python-py3", "", "no pinned tag"),
        ("USER 1000:1000", "USER 0:0", "runs as root"),
        ("USER 1000:1000\n", "", "runs as root"),
        ("COPY kernels kernels", "COPY kernels2 kernels", "kernels2 does not exist"),
        ("COPY kernels kernels", "COPY tests tests", "tests is kept out by .dockerignore"),
        ("--no-deps --requirement", "--requirement", "pip install without --no-deps"),
        ("--no-cache-dir --no-deps --no-build", "--no-deps --no-build", "pip install without --no-cache-dir"),
        ("--editable .", "numpy", "pip install of a name"),
        ("rm /tmp/missing.txt", "apt-get install -y curl", "may not fetch"),
        ("> /tmp/missing.txt", "| tee /tmp/missing.txt", "a pipe hides errors"),
        ("WORKDIR /opt", "WORKDIR opt", "must be absolute"),
        ("WORKDIR /opt/fun-audio-chat", "ADD . /opt/fun-audio-chat", "ADD is not allowed"),
        ('CMD ["python3"', 'CMD python3 "', "must be a JSON list"),
        ("EXPOSE", "RUN true\nEXPOSE", "RUN after USER"),
    ],
)
def test_faults_are_found(old, new, fault):
    assert old in DOCKERFILE
    assert any(fault in found for found in lint(DOCKERFILE.replace(old, new), ROOT, IGNORE))


def test_the_image_is_the_pinned_one_and_its_digest_an_argument():
    instructions = parse(DOCKERFILE)
    assert base_image(instructions) == CONTRACT["versions"]["triton_images"][0]
    assert base_image(instructions, IMAGE_DIGEST="sha256:12ab").endswith("trtllm-python-py3@sha256:12ab")
    assert arguments(instructions)["IMAGE_DIGEST"] == ""
    assert CONTRACT["versions"]["tensorrt_llm"] == TENSORRT_LLM


def test_everything_that_the_package_needs_is_copied_and_nothing_else_is_sent():
    copied = {part for i in parse(DOCKERFILE) if i.name == "COPY" for part in shlex.split(i.text)[:-1]}
    packages = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests", "scripts", "benchmarks"}
    assert packages | {"model_repository", "pyproject.toml", "README.md"} <= copied
    for name in ("tests", ".git", "build", ".venv", "Makefile", "runtime/engines/__pycache__"):
        assert ignored(name, IGNORE), name
    for name in ("runtime/engines/base.py", "model_repository/flow/1/model.py", "docker/requirements.txt"):
        assert not ignored(name, IGNORE), name


def test_the_default_command_is_one_of_the_server():
    (command,) = [json.loads(i.text) for i in parse(DOCKERFILE) if i.name == "CMD"]
    assert command[:3] == ["python3", "-m", "runtime.supervisor"]
    assert str(server_parser().parse_args(command[3:]).out) == "/engines"
    (exposed,) = [i.text.split() for i in parse(DOCKERFILE) if i.name == "EXPOSE"]
    assert sorted(map(int, exposed)) == sorted(Addresses().ports().values())


# --- compose file


def interpolate(text, values):
    """Compose's variables: ${A}, ${A:-default}, ${A:?message}, ${A:+alternative}, nested."""

    def fill(match):
        name, kind, word = match[1], match[2], match[3] or ""
        value = values.get(name, "")
        if kind == "?" and not value:
            raise KeyError(f"{name}: {word}")
        if kind == "+":
            return word if value else ""
        return value or word

    pattern = re.compile(r"\$\{(\w+)(?::([-?+])([^{}]*))?\}")
    while pattern.search(text):
        text = pattern.sub(fill, text)
    return text


def compose(**values):
    return yaml.safe_load(interpolate((ROOT / "compose.yaml").read_text("utf-8"), GIVEN | values))


SERVE, BUILD = ("serve", "serve-two-gpus"), ("build", "build-two-gpus")


def makefile(name):
    return re.search(rf"^{name}\s*\?= (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)[1]


def words(service):
    command = service["command"]
    return shlex.split(command) if isinstance(command, str) else command


@pytest.mark.parametrize("name", SERVE)
def test_ports_are_the_makefiles_on_loopback(name):
    published = {}
    for entry in compose()["services"][name]["ports"]:
        address, outside, inside = entry.rsplit(":", 2)
        assert address == makefile("HOST") == Addresses().host
        published[int(outside)] = int(inside)
    expected = {int(makefile(f"{kind}_PORT")) for kind in ("GRPC", "HTTP", "METRICS")}
    assert published == {port: port for port in expected} and expected == set(Addresses().ports().values())
    moved = compose(GRPC_PORT="9001", BIND="0.0.0.0")["services"][name]["ports"]
    assert moved[0] == f"0.0.0.0:9001:{Addresses().grpc_port}"


@pytest.mark.parametrize("name", SERVE)
def test_the_server_has_time_to_drain(name):
    service = compose()["services"][name]
    grace = float(service["stop_grace_period"].removesuffix("s"))
    given = server_parser().parse_args(words(service)[3:])
    patience = Patience(drain=given.drain, stop=given.stop)
    assert grace >= patience.drain + patience.stop + KILL_S + patience.poll
    assert service["init"] is True and service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", SERVE)
def test_health_is_the_readiness_of_the_public_model(name):
    check = compose()["services"][name]["healthcheck"]
    kind, program, flag, code = check["test"]
    assert (kind, program, flag) == ("CMD", "python3", "-c")
    compile(code, "healthcheck", "exec")
    assert Addresses(host="0.0.0.0").ready_url in code
    assert int(check["start_period"].removesuffix("m")) * 60 >= Patience().load


def test_health_check_fails_while_nothing_listens(monkeypatch):
    code = compose()["services"]["serve"]["healthcheck"]["test"][-1]
    with pytest.raises(OSError):
        exec(code.replace("8000", "1"), {})


@pytest.mark.parametrize("name", [*SERVE, *BUILD, "parity"])
def test_every_service_is_the_image_without_root(name):
    service = compose()["services"][name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0 and int(gid) > 0
    assert service["cap_drop"] == ["ALL"] and "privileged" not in service
    assert service["build"]["dockerfile"] == "docker/Dockerfile" and (ROOT / service["build"]["dockerfile"]).is_file()
    assert set(service["build"]["args"]) <= set(arguments(parse(DOCKERFILE)))
    assert service["ulimits"]["memlock"] == -1 and int(service["shm_size"].removesuffix("gb")) >= 1


def mounts(service):
    """By path outside: path inside, whether it is read only."""
    return {entry["source"]: (entry["target"], entry.get("read_only", False)) for entry in service["volumes"]}


@pytest.mark.parametrize("name", [*SERVE, *BUILD, "parity"])
def test_checkpoints_are_read_only_and_engines_are_kept(name):
    volumes = mounts(compose()["services"][name])
    assert volumes["/data/chat"] == ("/checkpoints/fun_audio_chat", True)
    assert volumes["/data/voice"] == ("/checkpoints/cosyvoice3", True)
    assert volumes[f"./{makefile('OUT').replace('$(TARGET)', 'tensorrt')}"] == ("/engines", False)
    for missing in GIVEN:
        with pytest.raises(KeyError, match=missing):
            compose(**{missing: ""})


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize(
    ("values", "profile", "voices"),
    [({}, None, None), ({"PROFILE": "h100-w8a16", "VOICES": "/v.pt"}, "h100-w8a16", "/checkpoints/voices.pt")],
)
def test_engines_are_built_where_they_are_served(name, values, profile, voices):
    service = compose(**values)["services"][name]
    command = words(service)
    assert command[:3] == ["python3", "-m", "builders"]
    given = builders_parser().parse_args(command[3:])
    inside = {target for target, _ in mounts(service).values()}
    assert given.target == "tensorrt" and {str(given.out), str(given.model), str(given.cosyvoice)} <= inside
    assert (given.profile, given.voices and str(given.voices)) == (profile, voices)
    assert given.token2wav_apart == name.endswith("two-gpus")
    served = server_parser().parse_args(words(compose()["services"]["serve"])[3:])
    assert served.out == given.out


def test_parity_is_the_command():
    given = parity_parser().parse_args(words(compose(PARITY_ARGS="--graphs 8")["services"]["parity"])[3:])
    assert (str(given.out), given.target, given.graphs) == ("/engines", "tensorrt", 8)


def test_gpus_are_reserved_one_or_two():
    for name, count in (("serve", 1), ("build", 1), ("parity", 1), ("serve-two-gpus", 2), ("build-two-gpus", 2)):
        (device,) = compose()["services"][name]["deploy"]["resources"]["reservations"]["devices"]
        assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
        assert device["device_ids"] == ["0", "1"][:count]
    assert compose(GPU="3")["services"]["serve"]["deploy"]["resources"]["reservations"]["devices"][0]["device_ids"] == [
        "3"
    ]


def test_up_starts_one_server_only():
    services = compose()["services"]
    assert [name for name, service in services.items() if "profiles" not in service] == ["serve"]


def test_the_makefile_gives_compose_every_variable():
    used = set(re.findall(r"\$\{(\w+)", (ROOT / "compose.yaml").read_text("utf-8")))
    text = (ROOT / "Makefile").read_text("utf-8")
    handed = set(re.findall(r"\b([A-Z_]+)=", re.search(r"^COMPOSE\s+:=(.*?)docker compose$", text, re.M | re.S)[1]))
    assert handed <= used, "nothing is handed over in vain"
    assert used - handed == {"IMAGE_DIGEST", "GPU", "GPU2"}, "the rest has defaults and comes from the environment"
    for target in ("build", "serve"):
        assert f"{target}$(GPUS)" in text


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["parity", "TARGET=tensorrt"], "docker compose run --rm parity"),
        (["parity", "PARITY_ARGS=--graphs 2"], '-m builders.parity --out="$OUT" --target cpu --graphs 2'),
        (["serve", "TARGET=tensorrt", "TWO_GPUS=1"], "docker compose up serve-two-gpus"),
        (["build-engines", "TARGET=tensorrt", "OUT=some/where"], "docker compose run --rm build"),
    ],
)
def test_make_calls_compose_for_the_container_only(arguments, command):
    bare = {"PATH": os.environ["PATH"]}  # nothing that the make around these tests was given
    made = subprocess.run(
        ["make", "-n", *arguments], cwd=ROOT, env=bare, capture_output=True, text=True, check=True
    ).stdout
    assert command in made
    assert ("docker" in made) == ("TARGET=tensorrt" in arguments)
    assert not re.search(r"RUN_UID=0\b", made)


HOSTILE = "some/wh ere $HOME $(touch ran) `touch ran` \"q' 模型 #"


@pytest.mark.parametrize("given", ["arguments", "environment"])
def test_paths_reach_the_commands_as_they_are(tmp_path, given):
    """Neither make nor its shells read what a path holds."""
    (tmp_path / "docker").write_text('#!/bin/sh\nprintf "%s|" "$OUT" "$MODEL" "$COSYVOICE" "$VOICES"\n')
    (tmp_path / "docker").chmod(0o755)
    paths = {"OUT": str(tmp_path / HOSTILE), "MODEL": HOSTILE}
    line = ["make", "-s", "build-engines", "TARGET=tensorrt"]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", **(paths if given == "environment" else {})}
    line += [f"{name}={path}" for name, path in paths.items() if given == "arguments"]
    made = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    assert made.split("|")[:4] == [paths["OUT"], str(ROOT / HOSTILE), "", ""]
    assert not (ROOT / "ran").exists()


@pytest.mark.parametrize("name", SERVE)
def test_the_container_takes_the_options_of_the_server(name):
    args = "--tls-cert /secrets/server.crt --tls-key /secrets/server.key --token-file /secrets/token"
    service = compose(SERVE_ARGS=args, SECRETS="/data/secrets")["services"][name]
    given = server_parser().parse_args(words(service)[3:])
    assert (given.host, given.token_file, given.tls_cert) == ("0.0.0.0", "/secrets/token", "/secrets/server.crt")
    assert mounts(service)["/data/secrets"] == ("/secrets", True)
