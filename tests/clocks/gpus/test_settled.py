"""Where a GPU settles at default clocks, and which switches a clock that wavers can't be taken for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.lags import Switch
from joulepath_clocks.gpus.settled import Settled

CLOCKS_MHZ = tuple(range(1410, 200, -15))
clocks = st.sampled_from(CLOCKS_MHZ)


def looked(*looks_mhz: int) -> Settled:
    """After these looks."""
    settled = Settled(CLOCKS_MHZ)
    for look_mhz in looks_mhz:
        settled.add(look_mhz)
    return settled


def test_a_few_looks_tell_nothing_and_then_orders_lead_to_the_highest_clock() -> None:
    settled = looked(*[1200] * 10)
    assert settled.clock_mhz is None
    assert (settled.reached_mhz(0), settled.reached_mhz(900)) == (1410, 900)


@given(clocks, st.randoms(use_true_random=False))
def test_a_capped_clock_that_wavers_settles_within_a_step_of_its_middle_and_looks_while_it_waits_move_nothing(
    middle_mhz: int, chance: random.Random
) -> None:
    capped = [middle_mhz + 15 * chance.choice((-2, -1, 0, 1, 2)) for _ in range(75)]
    looks = capped + [1410] * 5
    chance.shuffle(looks)
    settled = looked(*looks)
    assert settled.clock_mhz is not None
    assert abs(settled.clock_mhz - middle_mhz) <= 2 * 15
    assert settled.clock_mhz in CLOCKS_MHZ
    assert settled.reached_mhz(0) == settled.clock_mhz
    assert settled.reached_mhz(1410) == settled.clock_mhz


def test_what_is_told_changes_only_where_it_has_moved_by_more_than_a_step() -> None:
    settled = looked(*[1200] * 101)
    for _ in range(101):
        settled.add(1215)
    assert settled.clock_mhz == 1200
    for _ in range(101):
        settled.add(1245)
    assert settled.clock_mhz == 1245


def test_what_one_process_settled_at_is_nothing_for_the_next() -> None:
    settled = looked(*[1200, 1260] * 20)
    settled.forget()
    assert (settled.clock_mhz, settled.spread_mhz, settled.reached_mhz(0)) == (None, 0, 1410)
    settled.add(1200)
    assert settled.clock_mhz is None


@given(clocks, st.integers(0, 60))
def test_a_clock_that_wavers_below_a_cap_contradicts_no_order_above_it_and_one_beyond_a_step_does(
    capped_mhz: int, waver_mhz: int
) -> None:
    settled = looked(*[capped_mhz - waver_mhz, capped_mhz] * 45)
    for ordered_mhz in (0, 1410):
        assert settled.lowest_mhz(ordered_mhz) <= capped_mhz - waver_mhz
        assert settled.highest_mhz(ordered_mhz) == 1425
    assert settled.lowest_mhz(150) == 135 or capped_mhz <= 300
    assert settled.highest_mhz(150) == 165


@given(clocks, clocks, st.integers(0, 120), st.data())
def test_a_switch_that_is_measured_is_never_over_at_a_clock_within_the_spread_of_its_begin(
    from_mhz: int, to_mhz: int, spread_mhz: int, data: st.DataObject
) -> None:
    switch = Switch.between(from_mhz, to_mhz, 15, spread_mhz)
    if switch is None:
        assert abs(to_mhz - from_mhz) <= 15 + max(15, spread_mhz)
        return
    wavering_mhz = data.draw(st.integers(from_mhz - spread_mhz, from_mhz + spread_mhz))
    assert not switch.is_over(wavering_mhz)
    assert all(switch.is_over(to_mhz + off_mhz) for off_mhz in (-15, 0, 15))
