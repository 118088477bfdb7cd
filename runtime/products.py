"""Which products of matrices the CPU library makes, so that a row never depends on the rows beside it."""

from __future__ import annotations

import os
from pathlib import Path

CPU_FACTS = Path("/proc/cpuinfo")
VARIABLE = "MKL_CBWR"
MAKER = "GenuineIntel"
# On processors of other makers the library's own choice keeps rows apart from ``kernels.linear.LEAST_ROWS`` on.
STRICT = (("avx512f", "AVX512,STRICT"), ("avx2", "AVX2,STRICT"))


def exact_products(facts: Path = CPU_FACTS) -> dict[str, str]:
    """Environment of a process whose products are to be the same to the last bit in any company.

    Intel's MKL reads it at its first product: on Intel's processors it else sums up to 16 rows in other orders than
    more. What is set already stands.
    """
    if VARIABLE in os.environ:
        return {}
    try:
        text = facts.read_text("utf-8", errors="replace")
    except OSError:  # not Linux
        return {}
    if MAKER not in text:
        return {}
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return next(({VARIABLE: mode} for flag, mode in STRICT if flag in flags), {})
