"""The variables that keep products exact in any company, by processor."""

from __future__ import annotations

import pytest

from runtime.products import VARIABLE, exact_products

LINES = "processor\t: 0\nvendor_id\t: {maker}\nflags\t\t: fpu sse {flags}\n"


@pytest.mark.parametrize(
    ("maker", "flags", "mode"),
    [
        ("GenuineIntel", "avx avx2 avx512f", "AVX512,STRICT"),
        ("GenuineIntel", "avx avx2", "AVX2,STRICT"),
        ("GenuineIntel", "", None),
        ("AuthenticAMD", "avx avx2 avx512f", None),
    ],
)
def test_the_mode_is_the_processors(tmp_path, monkeypatch, maker, flags, mode):
    monkeypatch.delenv(VARIABLE, raising=False)
    facts = tmp_path / "cpuinfo"
    facts.write_text(LINES.format(maker=maker, flags=flags))
    assert exact_products(facts) == ({} if mode is None else {VARIABLE: mode})


def test_what_an_operator_chose_stands(monkeypatch):
    monkeypatch.setenv(VARIABLE, "COMPATIBLE")
    assert exact_products() == {}


def test_a_machine_without_such_a_file(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert exact_products(tmp_path / "none") == {}
