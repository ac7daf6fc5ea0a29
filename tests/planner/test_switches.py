"""The fewest changes among clocks of equal cost, against trying all of them."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from joulepath_planner import Instruction, Point, Profile
from joulepath_planner.clocks.switches import calm
from tests.examples import examples

CLOCKS = (1000, 900, 800)
# Of each kind, other clocks cost the same: F's upper two, B's lower two, none of I's, all of X's; W goes with I.
SAME = {"F": (1.0, 1.0, 1.2), "B": (1.0, 1.2, 1.2), "I": (1.0, 1.1, 1.2), "W": (1.0, 1.1, 1.2)}
PROFILE = Profile(
    {
        **{
            (0, kind): tuple(Point(clock, t, 100 / t**2) for clock, t in zip(CLOCKS, times, strict=True))
            for kind, times in SAME.items()
        },
        (0, "X"): (Point(1000, 1.0, 50.0),),
    },
    40.0,
)


def changes(clocks: tuple[int | None, ...]) -> int:
    return sum(a != b for a, b in zip(clocks, (*clocks[1:], clocks[0]), strict=True))


def equal(kind: str, clock: int) -> list[int]:
    def cost(at: int) -> tuple[float, float]:
        return PROFILE.at(0, kind, at)

    return [other for other in CLOCKS if cost(other) == cost(clock)]


@examples(200)
@given(st.lists(st.tuples(st.sampled_from("FBIX"), st.sampled_from(CLOCKS)), min_size=1, max_size=6))
def test_no_choice_of_equal_clocks_has_fewer_changes(given_: list[tuple[str, int]]) -> None:
    order = [Instruction(0, kind, number) for number, (kind, _) in enumerate(given_)]
    clocks = [None if clock == 1000 else clock for _, clock in given_]
    found = calm(PROFILE, 40.0, order, clocks)
    choices = [equal(kind, clock) for kind, clock in given_]
    assert all((clock or 1000) in some for clock, some in zip(found, choices, strict=True))
    assert changes(found) == min(changes(tuple(some)) for some in itertools.product(*choices))


def test_what_saves_no_switch_stays() -> None:
    order = [Instruction(0, "F", 0), Instruction(0, "I", 0)]
    assert calm(PROFILE, 40.0, order, [900, 800]) == (900, 800)
