"""Every kernel compiles for real GPUs, without one: the interpreter would run what the compiler refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from builders import upstream

SHARED = {"A100": 163 << 10, "H100": 227 << 10}  # bytes that a program may have
KERNELS = {
    "_attend_split", "_join_splits", "_attend_tile", "_rotate_and_store", "_add_rms_norm", "_swiglu", "_mean_rows",
    "_mix_text", "_guided_step", "_snake", "_scaled_product", "_choose_short", "_choose_long", "_scan", "_accept",
    "_fused_linear", "_modulated_norm", "_pack_heads", "_attend_blocks",
    "_route", "_group_pairs", "_grouped_product", "_mix_experts",
}  # fmt: skip
HALF = ("*bf16", "*fp16")
OF_HOPPER = {"_attend_blocks"}  # whose widest tile in 16 bit is multiplied by Hopper's own instructions


def compile_all(cache, before=(), **variables):
    """What was compiled, by the installed Triton or by one that lies in a folder ``before`` it."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[2]
    environment["PYTHONPATH"] = ":".join(map(str, [*before, root]))
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
    names = {name.split()[0].split(".")[1] for name in found}
    assert names >= KERNELS, KERNELS - names


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """By kernel, types, GPU and constants: what the compiler made."""
    return compile_all(tmp_path_factory.mktemp("triton"))["found"]


def test_all_kernels_compile_for_ampere_and_hopper(compiled):
    check(compiled)


@pytest.mark.parametrize("version", list(upstream.TRITONS))
def test_all_kernels_compile_with_an_older_triton(version, fetched, tmp_path):
    """That of the serving image. One variant of each, or with ``EVERY_VARIANT`` all of them."""
    wanted = {} if os.environ.get("EVERY_VARIANT") else {"ONE_VARIANT": "1"}
    made = compile_all(tmp_path, [fetched(upstream.TRITONS[version])], **wanted)
    assert made["triton"] == version
    check(made["found"])


def test_no_kernel_is_less_exact_than_it_says(compiled):
    """No product of cut float32 and no approximate sine, in any variant."""
    newest = {name: sizes for name, sizes in compiled.items() if "tf32" in sizes}
    assert len(newest) > len(KERNELS)
    assert not [name for name, sizes in newest.items() if sizes["tf32"] or sizes["approximate"]]


def test_kernels_in_16_bit_spill_nothing(compiled):
    """Their speed is what counts; float32 variants are for comparisons, and some spill."""
    newest = {name: sizes["stack"] for name, sizes in compiled.items() if "stack" in sizes}
    half = {name: size for name, size in newest.items() if any(kind in name for kind in HALF)}
    assert len(half) > 20 and not {name: size for name, size in half.items() if size}


def test_which_kernels_have_hoppers_products(compiled):
    """Another code path of the compiler: what takes it must be compared with its twin at that very size."""
    found = [name for name, sizes in compiled.items() if sizes.get("wgmma")]
    assert {name.split()[0].split(".")[1] for name in found} == OF_HOPPER
    assert all("*fp16" in name for name in found)
