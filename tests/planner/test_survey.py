"""How well a frontier is known, and which clock tells most of what isn't."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import pairwise
from math import inf, isinf

import pytest

from joulepath_planner import Pipeline, Point, Profile, one_f_one_b, survey

CLOCKS = tuple(range(1400, 790, -15))
TOP = CLOCKS[0]
ENDS = (TOP, CLOCKS[-1])


def point(clock: int, base_s: float, step_below: int = 0) -> Point:
    time_s = base_s * (0.3 + 0.7 * TOP / clock) * (0.96 if clock < step_below else 1.0)
    joules = time_s * (120 + 260 * (clock / TOP) ** 2.4)
    return Point(clock, time_s, joules, 5e-4 * time_s, 2e-3 * joules)


def measured(at: Collection[int], step_below: int = 0, microbatches: int = 4) -> Pipeline:
    """Three stages as measured at some clocks; below `step_below` work is sooner done than a curve would have it."""
    points = {
        (stage, kind): tuple(point(CLOCKS[place], base * size, step_below) for place in sorted(at))
        for stage, size in enumerate((1.0, 0.9, 1.1))
        for kind, base in (("F", 0.05), ("B", 0.1))
    }
    return Pipeline(one_f_one_b(3, microbatches), Profile(points, 80.0))


def test_without_a_clock_that_was_predicted_nobody_knows_whether_curves_are_right() -> None:
    found = survey(measured((0, 15, 40)), CLOCKS, (), CLOCKS[1:-1], 3)
    assert isinf(found.uncertainty)
    assert len(set(found.tells_most_mhz)) == 3
    assert set(found.tells_most_mhz) <= set(CLOCKS[1:-1])


def test_what_came_as_predicted_is_known() -> None:
    found = survey(measured((0, 8, 15, 25, 40)), CLOCKS, (CLOCKS[8], CLOCKS[25]), (), 3)
    assert found.uncertainty < 0.01
    assert found.tells_most_mhz == ()


def test_what_came_otherwise_is_not_known_yet() -> None:
    clocks = (0, 8, 15, 25, 40)
    stepped = measured(clocks, step_below=CLOCKS[20])
    newest = [CLOCKS[25], CLOCKS[40]]
    assert survey(stepped, CLOCKS, newest, (), 1).uncertainty > 0.01


def test_clocks_that_are_chosen_together_tell_different_things() -> None:
    first, second = survey(measured((0, 20, 40)), CLOCKS, (), CLOCKS[1:-1], 2).tells_most_mhz
    assert abs(first - second) > 45


def test_no_clock_beyond_what_was_measured_is_chosen() -> None:
    assert survey(measured((0, 10, 20)), CLOCKS, (), (CLOCKS[30],), 1).tells_most_mhz == ()


@pytest.mark.parametrize("newest", [(), (CLOCKS[15],)])
def test_a_long_iteration_is_as_known_as_its_first_microbatches(newest: tuple[int, ...]) -> None:
    short, long = (
        survey(measured((0, 8, 15, 25, 40), microbatches=count), CLOCKS, newest, CLOCKS[1:-1], 2) for count in (33, 200)
    )
    assert short == replace(long)
    assert (short.uncertainty == inf) == (not newest)


def test_of_a_long_iteration_messages_leave_as_late_as_of_a_short_one() -> None:
    """As of Megatron's batched exchanges; else another frontier than the job's is looked at."""

    def together(microbatches: int) -> Pipeline:
        pipeline = measured((0, 8, 15, 25, 40), microbatches=microbatches)
        pairs = [
            (one, behind)
            for order in pipeline.schedule.orders
            for one, behind in pairwise(order)
            if (one.kind, behind.kind) == ("F", "B")
        ]
        marked = replace(
            pipeline.schedule, sent_after=dict(pairs), awaited_before={behind: one for one, behind in pairs[3:]}
        )
        return replace(pipeline, schedule=marked)

    short, long = (survey(together(count), CLOCKS, (CLOCKS[15],), CLOCKS[1:-1], 2) for count in (33, 200))
    assert short == long


def test_a_round_that_came_far_otherwise_is_looked_at_all_the_same() -> None:
    pipeline = measured((0, 8, 15, 25, 40))
    for factor in (1.3, 1.4, 20.0):
        points = {
            key: tuple(
                replace(one, time_s=factor * one.time_s, energy_j=factor * one.energy_j, time_se_s=one.time_s)
                if one.clock_mhz == CLOCKS[25]
                else one
                for one in some
            )
            for key, some in pipeline.profile.points.items()
        }
        odd = replace(pipeline, profile=Profile(points, 80.0))
        assert 0.01 < survey(odd, CLOCKS, (CLOCKS[25],), CLOCKS[1:-1], 1).uncertainty < inf
