"""Cases outside a test of hypothesis: many examples of strategies at once, the same for the same seed."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.endurance.case import Case
from tests.endurance.oracle import PromptOracle
from tests.endurance.strategies import conflicts, contents, fair, histories, parameters, strings, tensors
from tests.endurance.strategies_sound import broken_sounds, injections, long_texts, sounds, surrogates
from tests.endurance.strategies_wire import fields, garbage


def every_kind(oracle: PromptOracle) -> st.SearchStrategy[Case]:
    """All strategies, about evenly."""
    return st.one_of(
        fair(), tensors(), contents(), strings(), parameters(), histories(), conflicts(), sounds(), broken_sounds(),
        injections(oracle), surrogates(), long_texts(), fields(), garbage(),
    )  # fmt: skip


def malformed() -> st.SearchStrategy[Case]:
    """Requests that must be refused."""
    return st.one_of(conflicts(), broken_sounds(), surrogates())


def pool(strategy: st.SearchStrategy[Case], count: int, number: int) -> list[Case]:
    """Examples of a strategy."""
    found: list[Case] = []

    @seed(number)
    @settings(max_examples=count, phases=[Phase.generate], database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    return found
