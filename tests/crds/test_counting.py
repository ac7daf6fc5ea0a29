"""Which iterations of a block count."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from joulepath_rules import counted


@given(st.lists(st.booleans(), max_size=20), st.booleans())
def test_those_count_that_are_whole_and_follow_a_whole_one_and_where_none_does_all_that_are_whole(
    whole: list[bool], settled: bool
) -> None:
    places = counted(whole, settled)
    possible = [at for at in range(not settled, len(whole)) if whole[at]]
    usual = [at for at in possible if not at or whole[at - 1]]
    assert list(places) == (usual or possible)


def test_a_loop_that_evaluates_every_second_iteration_has_some_that_count() -> None:
    assert counted([True, False] * 3) == (2, 4)
    assert counted([True, True, False] * 3) == (1, 4, 7)
    assert counted([False] * 5, settled=True) == ()
