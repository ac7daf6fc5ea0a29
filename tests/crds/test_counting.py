"""Which iterations of a block count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_rules import Length, Sort, counted

WHOLE, OWN, UNKNOWN = Length
LENGTHS = {"w": WHOLE, "o": OWN, "u": UNKNOWN}


@pytest.mark.parametrize(
    ("lengths", "places"),
    [
        ("wwww", (1, 2, 3)),
        ("wwowwo", (1, 4)),
        ("wowowo", (1, 3, 5)),
        ("owowow", (2, 4)),
        ("wuwuwu", (2, 4)),
        ("uwwuwwu", (2, 5)),
        ("woowoo", (1, 4)),
        ("ooouo", ()),
        ("w", ()),
    ],
)
def test_those_count_that_follow_on_a_whole_one_and_without_them_those_that_are_known_best(
    lengths: str, places: tuple[int, ...]
) -> None:
    """Of every third, second and second iteration, from here or there on; where they are broken off; two in a row."""
    assert counted([LENGTHS[one] for one in lengths])[1] == places


@given(st.lists(st.sampled_from(Length), max_size=20), st.booleans())
def test_what_counts_is_of_one_kind_and_known(lengths: list[Length], settled: bool) -> None:
    sort, places = counted(lengths, settled)
    kinds = {(lengths[at], at == 0 or lengths[at - 1] is WHOLE) for at in places}
    of_sort = {Sort.WHOLE: (WHOLE, True), Sort.OWN: (OWN, True), Sort.DISTURBED: (WHOLE, False)}
    assert kinds <= {of_sort[sort]}
    assert settled or 0 not in places
    assert places or WHOLE not in lengths[not settled :]


def test_the_first_counts_where_clocks_were_the_same_before_it() -> None:
    assert counted([WHOLE, WHOLE], settled=True) == (Sort.WHOLE, (0, 1))
    assert counted([OWN, UNKNOWN], settled=True) == (Sort.OWN, (0,))
    assert counted([UNKNOWN, UNKNOWN], settled=True) == (Sort.WHOLE, ())
