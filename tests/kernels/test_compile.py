"""Every kernel compiles for real GPUs, without one: the interpreter would run what the compiler refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import upstream

SHARED = {"A100": 163 << 10, "H100": 227 << 10}  # bytes that a program may have
KERNELS = {
    "_attend_split", "_join_splits", "_attend_tile", "_rotate_and_store", "_add_rms_norm", "_swiglu", "_mean_rows",
    "_mix_text", "_guided_step", "_snake", "_scaled_product", "_choose_short", "_choose_long", "_scan", "_accept",
    "_fused_linear", "_modulated_norm", "_pack_heads", "_attend_blocks",
}  # fmt: skip


def compile_all(cache, before=(), **variables):
    """What was compiled, by the installed Triton or by one that lies in a folder ``before`` it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = ":".join(map(str, [*before, root, root / "scripts"]))
    environment |= {"TRITON_CACHE_DIR": str(cache), **variables}
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "compile_all.py")],
        env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    if "ptxas" in done.stderr and "not found" in done.stderr.lower():
        pytest.skip("this build of Triton brings no assembler")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check(found):
    """Code within what the GPU has, of every kernel."""
    for name, sizes in found.items():
        gpu = next(gpu for gpu in SHARED if f" {gpu} " in name)
        assert sizes["bytes"] > 0 and sizes["shared"] <= SHARED[gpu], name
    compiled = {name.split()[0].split(".")[1] for name in found}
    assert compiled >= KERNELS, KERNELS - compiled


def test_all_kernels_compile_for_ampere_and_hopper(tmp_path):
    check(compile_all(tmp_path)["found"])


@pytest.mark.parametrize("version", list(upstream.TRITONS))
def test_all_kernels_compile_with_an_older_triton(version, fetched, tmp_path):
    """That of the serving image. One variant of each, or with ``EVERY_VARIANT`` all of them."""
    wanted = {} if os.environ.get("EVERY_VARIANT") else {"ONE_VARIANT": "1"}
    made = compile_all(tmp_path, [fetched(upstream.TRITONS[version])], **wanted)
    assert made["triton"] == version
    check(made["found"])
