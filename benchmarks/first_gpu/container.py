"""The longer plan for an H100 with Docker: target ``tensorrt`` in its container, and ``cuda`` beside it."""

from __future__ import annotations

from benchmarks.first_gpu.plan import CARD, Part, Step

BUDGET_S = 4 * 3600.0
WANTED = ("MODEL", "COSYVOICE")
ENGINES, TINY = "TARGET=tensorrt", "OUT=build/first_tiny"
# In the order of the audit: what takes minutes and can fail first, the long compile after it.
_STEPS = (
    ("card", f"nvidia-smi --query-gpu={CARD} --format=csv", 30, 2, "no GPU: nothing else will run", ()),
    ("image", "MODEL=. COSYVOICE=. docker compose build build", 3600, 1800,
     "the image does not build: what is missing in docker/Dockerfile is named last", ()),
    ("libraries", "MODEL=. COSYVOICE=. docker compose run --rm build"
     " python3 -m pip list | grep -iE '^(torch|tensorrt|triton|transformers|numpy)'",
     300, 60, "versions differ from docs/tensorrt.md", ()),
    ("tiny", "MODEL=. COSYVOICE=. docker compose run --rm -v ./build/first_tiny:/engines build"
     " python3 -m builders build --target tensorrt --out /engines", 1200, 400,
     "the tiny checkpoint shows what fails of export, engines and plans in minutes", ()),
    ("tiny parity", "MODEL=. COSYVOICE=. docker compose run --rm -v ./build/first_tiny:/engines parity"
     " python3 -m builders.parity --out /engines --target tensorrt", 900, 200, "cases 1 to 5 name the part", ()),
    ("tiny graphs", "MODEL=. COSYVOICE=. docker compose run --rm -v ./build/first_tiny:/engines parity"
     " python3 -m builders.parity --out /engines --target tensorrt --graphs 8", 900, 200,
     "captured graphs: cases 2 and 4 say whether replay differs", ()),
    ("engines", f"make build-engines {ENGINES}", 5400, 2700, "note the largest memory of the host and minutes", WANTED),
    ("parity", f"make parity {ENGINES}", 1800, 900, "40 GB of host memory: PARITY_ARGS=--reference-dtype=bfloat16",
     WANTED),
    ("cuda", "make build-engines TARGET=cuda && make parity TARGET=cuda", 1800, 600,
     "the same questions on the other target", WANTED),
)  # fmt: skip
BY_HAND = (
    "plans with profiling_verbosity detailed: is attention one kernel?",
    "gemm_plugin off against auto: engine size, step time",
    "kill the stub of the model within a step: does the server come back?",
    "device_memory_size_v2 of both engines against docs/tensorrt.md",
)


def container_plan() -> list[Step]:
    """All steps; those with released weights need MODEL and COSYVOICE."""
    return [
        Step(name, (Part(name, ("bash", "-c", command), limit, usual),), fails, wanted=wanted)
        for name, command, limit, usual, fails, wanted in _STEPS
    ]
