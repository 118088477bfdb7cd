"""The plan for target ``cuda``: thirteen minutes on a bare machine with torch and Triton."""

from __future__ import annotations

from pathlib import Path

from benchmarks.first_gpu.plan import CARD, Part, Step, single

BUDGET_S = 780.0
#: Test files whose libraries a bare machine lacks, or that take no GPU.
LEFT_OUT = (
    "test_bench_gpu.py", "test_bench_parts.py", "test_first_gpu.py", "test_bare.py", "test_compile.py",
    "test_recorded_work.py", "test_load_peak.py", "test_late.py", "test_bench_sound.py",
)  # fmt: skip
SIDE_BY_SIDE = 4
REPORTS = ("-q", "-rf", "-p", "no:cacheprovider")


def test_files(root: Path, folder: str) -> list[str]:
    """Test files of a folder that run on a bare machine with a GPU."""
    found = sorted(path.name for path in (root / "tests" / folder).glob("test_*.py"))
    return [f"tests/{folder}/{name}" for name in found if name not in LEFT_OUT]


def _tests(
    root: Path, python: str, folder: str, limit_s: float, usual_s: float, fails: str, counted: bool = True
) -> Step:
    parts = tuple(
        Part(Path(file).stem, (python, "-m", "pytest", file, *REPORTS), limit_s, usual_s, counted=counted)
        for file in test_files(root, folder)
    )
    return Step(folder, parts, fails, SIDE_BY_SIDE)


def cuda_plan(root: Path, python: str, out: Path, rehearse: bool) -> list[Step]:
    """All steps.

    Args:
        out: folder of the results.
        rehearse: tiny sizes on the CPU.
    """
    size = ("--tiny", "--device", "cpu") if rehearse else ()
    card = (python, "-c", "print('rehearsal')") if rehearse else ("nvidia-smi", f"--query-gpu={CARD}", "--format=csv")

    def bench(name: str, parts: str, limit_s: float, usual_s: float, fails: str, *more: str) -> Step:
        result = f"{name}.json"
        command = (python, "-m", "benchmarks.gpu", "--parts", parts, "--json", str(out / result))
        # What is late says so by itself; the limit is for what does not come back.
        command += ("--deadline", f"{limit_s - 10:.0f}", *size, *more)
        return single(name, command, limit_s, usual_s, fails, result)

    return [
        single("card", card, 10, 2, "no GPU: nothing else will run"),
        bench("checks", "checks", 100, 40, "a kernel is wrong: note it and go on; after a lost device the rest ran"),
        _tests(root, python, "gpu", 90, 20, "comes first afterwards; all skipped: torch sees no GPU", not rehearse),
        _tests(root, python, "kernels", 100, 20, "a kernel is wrong at small sizes: compare with the checks"),
        bench(
            "language", "recorded,steps,frames,prefill,company,joining,profile", 190, 150, "drop prefill and profile",
            "--no-sound", "--profile", str(out / "frames.txt"),
        ),
        bench(
            "sound", "encoder,chunks,first_audio,flow_profile,sustained", 190, 150, "drop sustained",
            "--profile", str(out / "flow.txt"),
        ),
        bench("beside", "sustained_beside", 100, 95, "the figure of sound in a process of its own is missing"),
    ]  # fmt: skip
