"""Compiles every kernel for real GPUs, on a machine without one: launches are caught and compiled, not run.

Run by ``test_compile.py`` in a process of its own, because there the interpreter must be off. Prints one
JSON object: by kernel and GPU architecture, shared memory and the size of the code.
"""

import json
import re
import subprocess
import tempfile

import torch
import triton
from gpubench import bed, checks, rule_checks
from gpubench.sizes import full
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

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
    for name, architecture in ARCHITECTURES.items():
        if architecture < 89 and "*fp8e4nv" in signature.values():
            continue  # the format is Hopper's
        source = ASTSource(kernel, signature, constants, attrs)
        made = triton.compile(source, target=GPUTarget("cuda", architecture, WARP), options=settings)
        sizes = {"shared": made.metadata.shared, "bytes": len(made.asm["cubin"]), "warps": made.metadata.num_warps}
        if name == NEWEST:
            sizes |= facts(made.asm["ptx"]) | {"stack": stack_bytes(made.asm["cubin"])}
        found[f"{key} {kind} {name} {sorted(constants.values(), key=str)}"] = sizes


def main():
    JITFunction.run = caught
    names = [name for name in checks.COMPARISONS if name != checks.WHOLE_STACKS]  # made of the same kernels
    # The tensors are small and on the CPU; only their types and the constants of the full sizes matter.
    for dtype in (torch.bfloat16, torch.float32):  # float32 is what parity asks for, and needs twice the shared memory
        for check in checks.run_checks(full(), torch.device("cpu"), dtype, names):
            assert not check.problem, f"{check.name}: {check.problem}"
    # The flow's own type, and every tile of queries.
    from gpubench.flow_checks import flow_results

    from kernels.gpu import flow_attention
    from kernels.ops import kernel_ops, twin_ops

    for dtype in (torch.float16, torch.float32):
        flow_attention.processors = lambda device: 0  # then tiles are as wide as can be
        flow_results(full(), torch.device("cpu"), dtype, kernel_ops(), twin_ops())
        flow_attention.processors = lambda device: 1 << 20
        flow_results(full(), torch.device("cpu"), dtype, kernel_ops(), twin_ops())
    # Codes and text, first and last code of a group, and both stacks' heads with one split and with several.
    from kernels.gpu import accept, choice, fused, rows_attention

    slots = torch.zeros(3, dtype=torch.int32)
    for ids in (6565, 151936):
        choices = bed.choices_of(ids, torch.device("cpu"))
        for count in (0, 4) if ids == 6565 else (0,):
            choice.choose(torch.zeros(3, ids).bfloat16(), slots, choices, torch.zeros(3, count).long(), count)
    pool = bed.pool_of(full().model.backbone, [5, 9, 7], torch.device("cpu"), torch.bfloat16)
    for heads in (16, 32):
        for splits in (1, 16):
            rows_attention.attend_rows(torch.zeros(3, heads, 128).bfloat16(), pool, slots, slots, 0, splits)
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
    print(json.dumps(found))


if __name__ == "__main__":
    main()
