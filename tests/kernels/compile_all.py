"""Compiles every kernel for real GPUs, on a machine without one: launches are caught and compiled, not run.

Run by ``test_compile.py`` in a process of its own, because there the interpreter must be off. Prints one
JSON object: by kernel and GPU architecture, shared memory and the size of the code. With ``ONE_VARIANT``
every kernel is compiled once, for the newest of the architectures.
"""

import json
import os
import re
import subprocess
import tempfile
from functools import partial

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from benchmarks.gpu import bed, checks, rule_checks
from builders.released import full
from kernels.linear import Dense
from kernels.quantised import quantise

ARCHITECTURES = {"A100": 80, "H100": 90}
NEWEST = "H100"
WARP = 32
TYPES = {
    torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int32: "i32", torch.int64: "i64",
    torch.uint8: "u8", torch.int8: "i8", torch.bool: "i1", torch.float8_e4m3fn: "fp8e4nv",
}  # fmt: skip
DIVISIBLE = [["tt.divisibility", 16]]
found = {}


def facts(ptx):
    """Which instructions a kernel has: products of cut float32, approximate sines, Hopper's own products."""
    return {"tf32": ptx.count("tf32"), "approximate": ptx.count("sin.approx"), "wgmma": ptx.count("wgmma.mma_async")}


def stack_bytes(cubin):
    """Of a program: where registers are spilled to."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return max(map(int, re.findall(r"STACK:(\d+)", text)))


def caught(kernel, *args, grid, warmup, **options):
    """Stands for a launch."""
    names = [param.name for param in kernel.params]
    values = dict(zip(names, args, strict=False)) | {k: v for k, v in options.items() if k in names}
    signature, constants, attrs = {}, {}, {}
    for i, param in enumerate(kernel.params):
        value = values[param.name]
        if param.is_constexpr:
            signature[param.name] = "constexpr"
            constants[param.name] = value
        elif isinstance(value, torch.Tensor):
            signature[param.name] = "*" + TYPES[value.dtype]
            attrs[(i,)] = DIVISIBLE
        else:
            signature[param.name] = "fp32" if isinstance(value, float) else "i32"
            if isinstance(value, int) and value % 16 == 0 and not param.do_not_specialize:
                attrs[(i,)] = DIVISIBLE  # as a launch says it: without it 16-bit loads are not copied ahead
    settings = {k: v for k, v in options.items() if k in ("num_warps", "num_stages")}
    key = f"{kernel.fn.__module__.removeprefix('kernels.gpu.')}.{kernel.fn.__name__}"
    kind = "/".join(sorted({t for t in signature.values() if t.startswith(("*bf", "*fp", "*i8"))}))
    chosen = ARCHITECTURES.items()
    if os.environ.get("ONE_VARIANT"):
        chosen = [] if any(name.startswith(f"{key} ") for name in found) else list(chosen)[-1:]
    for name, architecture in chosen:
        if architecture < 89 and "*fp8e4nv" in signature.values():
            continue  # the format is Hopper's
        source = ASTSource(kernel, signature, constants, attrs)
        made = triton.compile(source, target=GPUTarget("cuda", architecture, WARP), options=settings)
        sizes = {"shared": made.metadata.shared, "bytes": len(made.asm["cubin"]), "warps": made.metadata.num_warps}
        if name == NEWEST:
            sizes |= facts(made.asm["ptx"]) | {"stack": stack_bytes(made.asm["cubin"])}
        found[f"{key} {kind} {name} {sorted(constants.values(), key=str)}"] = sizes


def compile_experts():
    """As a backbone with the released number of experts launches them: one row, few and many of them, and prompts."""
    from kernels.gpu import experts

    count, taken, width = 128, 8, 64
    for dtype in (torch.bfloat16, torch.float32):
        weights = [torch.zeros(count * out, width, dtype=dtype) for out in (2 * width, width)]
        kinds = [Dense, *(partial(quantise, dtype=kind) for kind in (torch.int8, torch.float8_e4m3fn))]
        for rows in (1, 16, 512):
            ids, mixed = experts.route(torch.zeros(rows, count, dtype=dtype), taken, True)
            grouping = experts.group_pairs(ids, count)
            x = torch.zeros(rows, width, dtype=dtype)
            for kind in kinds if dtype == torch.bfloat16 else kinds[:1]:
                active = experts.grouped_product(x, kind(weights[0]), grouping, taken, gated=True)
                experts.mix_experts(experts.grouped_product(active, kind(weights[1]), grouping, 1), mixed)


def main():
    JITFunction.run = caught
    apart = (checks.WHOLE_STACKS, checks.EXPERTS, *checks.VARIANTS)
    alone = [name for name in checks.COMPARISONS if name not in apart]
    # The tensors are small and on the CPU; only their types and the constants of the full sizes matter. In float32,
    # which parity asks for, and which needs twice the shared memory, one variant of each is enough.
    for dtype, names in ((torch.bfloat16, [*alone, *checks.VARIANTS]), (torch.float32, alone)):
        for check in checks.run_checks(full(), torch.device("cpu"), dtype, names):
            assert not check.problem, f"{check.name}: {check.problem}"
    # Codes in the model's type, first and last one of a group.
    from kernels.gpu import accept, choice, fused

    slots, choices = torch.zeros(3, dtype=torch.int32), bed.choices_of(6565, torch.device("cpu"))
    for count in (0, 4):
        choice.choose(torch.zeros(3, 6565).bfloat16(), slots, choices, torch.zeros(3, count).long(), count)
    answers, rules = rule_checks.answers(torch.device("cpu"))
    accept.accept(answers, rules, slots, torch.zeros(3, 6, dtype=torch.int64))
    # Narrow and wide tiles behind attention and SwiGLU, and the wide ones of SwiGLU itself.
    for dtype in (torch.bfloat16, torch.float32):
        rows, gain = torch.zeros(3, 64, dtype=dtype), torch.zeros(64, dtype=dtype)
        for outputs in (1024, 4096):
            weight, residual = torch.zeros(outputs, 64, dtype=dtype), torch.zeros(3, outputs, dtype=dtype)
            fused.fused_linear(rows, Dense(weight), residual=residual)
            if dtype == torch.bfloat16:
                fused.fused_linear(rows, quantise(weight, torch.int8), residual=residual)
        fused.fused_linear(rows, Dense(weight), gain, 1e-6, gated=True)  # 2048 of each
    compile_experts()
    print(json.dumps({"triton": triton.__version__, "found": found}))


if __name__ == "__main__":
    main()
