"""How long a rank may say nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.ranks.progress import silence_limit_s


@given(st.floats(0, allow_infinity=True, allow_nan=False))
def test_no_length_of_iterations_lets_a_silent_rank_keep_its_clock_for_more_than_a_minute(iteration_s: float) -> None:
    assert 2.0 <= silence_limit_s(iteration_s, BUDGET.silence_s) <= 60.0


def test_a_rank_may_be_silent_for_three_iterations() -> None:
    assert silence_limit_s(0.0, 60.0) == 2.0
    assert silence_limit_s(5.0, 60.0) == 15.0
    assert silence_limit_s(5.0, 10.0) == 10.0
