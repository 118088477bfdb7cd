"""The compose file, and how the Makefile calls it, against the facts that they repeat."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from builders.__main__ import parser as builders_parser
from builders.parity.__main__ import parser as parity_parser
from runtime.supervisor.__main__ import parser as server_parser
from runtime.supervisor.config import Addresses, Patience

ROOT = Path(__file__).parents[3]
KILL_S = 5.0  # what is left of the group after its patience is killed within this (runtime.supervisor.process)
GIVEN = {"MODEL": "/data/chat", "COSYVOICE": "/data/voice"}


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
    dockerfile = ROOT / service["build"]["dockerfile"]
    assert dockerfile == ROOT / "docker/Dockerfile"
    assert set(service["build"]["args"]) <= set(re.findall(r"^ARG (\w+)", dockerfile.read_text("utf-8"), re.M))
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
