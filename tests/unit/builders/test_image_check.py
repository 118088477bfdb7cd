"""The check that runs while the image is built: what it finds missing, what it refuses."""

import importlib.util
from pathlib import Path

import pytest

from runtime.engines.trtllm.pins import TENSORRT_LLM

ROOT = Path(__file__).parents[3]


def load_check():
    spec = importlib.util.spec_from_file_location("check_image", ROOT / "docker/check_image.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = load_check()


def test_only_what_is_missing_is_installed():
    wanted = ["soxr==1.1.0", "soundfile==0.14.0"]
    assert CHECK.missing(wanted, {"soundfile": "0.10"}.get) == ["soxr==1.1.0"]
    assert CHECK.lines(ROOT / "docker/requirements.txt")[0] == "cffi==2.1.1"


@pytest.mark.parametrize(
    ("need", "has", "problem"),
    [
        ("torch>=2.9", "2.10.0a0+b4e4ee8.nv25.12", None),
        ("torch>=2.9", "2.8.0", "torch: needs >=2.9, found 2.8.0"),
        ("numpy>=1.26,<2", "2.0.0", "numpy: needs <2,>=1.26, found 2.0.0"),
        ("soxr", None, "soxr: needs any version, found none"),
        ('numpy>=2.1; python_version >= "3.99"', None, None),
        ('pytest; extra == "dev"', None, None),
    ],
)
def test_versions_of_the_image_are_judged(need, has, problem):
    assert CHECK.problems([need], lambda name: has) == ([problem] if problem else [])


def test_this_environment_passes_but_for_the_library():
    found = CHECK.check(ROOT / "pyproject.toml", ROOT / "docker/requirements.txt", TENSORRT_LLM)
    assert found == [f"tensorrt_llm: needs =={TENSORRT_LLM}, found none"]


def test_additions_are_the_locked_versions():
    lock = set((ROOT / "requirements-cpu.lock").read_text("utf-8").splitlines())
    assert set(CHECK.lines(ROOT / "docker/requirements.txt")) <= lock
