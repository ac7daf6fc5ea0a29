"""When a clock counts as somebody else's, and that no fight of orders comes of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.foreign import Foreign, OnForeignClock, Suspicion


def test_three_looks_that_last_are_beyond_doubt_and_their_times_are_told() -> None:
    suspicion = Suspicion()
    assert [suspicion.look(900, True, now_s) for now_s in (1.0, 1.1)] == [(), ()]
    assert suspicion.look(900, True, 1.3) == (1.0, 1.1, 1.3)
    assert suspicion.look(900, True, 1.4) == ()


def test_looks_of_one_moment_are_no_proof() -> None:
    suspicion = Suspicion()
    assert not any(suspicion.look(900, True, 1.0 + 0.001 * look) for look in range(50))


def test_a_look_that_agrees_clears_its_own_order_and_no_other() -> None:
    suspicion = Suspicion()
    for now_s in (1.0, 1.2):
        suspicion.look(900, True, now_s)
        suspicion.look(600, True, now_s)
    suspicion.look(600, False, 1.3)
    assert suspicion.look(600, True, 1.4) == ()
    assert suspicion.look(900, True, 1.4) == (1.0, 1.2, 1.4)


@given(st.lists(st.floats(0.0, 100.0), max_size=60))
def test_orders_against_orders_are_at_most_three_in_any_minute_and_none_while_it_yields(gaps_s: list[float]) -> None:
    foreign, now_s, ordered_s, yielded_s = Foreign(OnForeignClock.REASSERT), 1000.0, list[float](), -1e9
    for gap_s in gaps_s:
        now_s += gap_s
        if foreign.yields(now_s):
            assert now_s < yielded_s + 600.0
            continue
        if foreign.decide(900, 1410, now_s):
            ordered_s.append(now_s)
        else:
            yielded_s = now_s
            assert foreign.yields(now_s)
        assert sum(now_s - 60.0 < at_s for at_s in ordered_s) <= 3
    assert (foreign.reasserted, foreign.yielded > 0) == (len(ordered_s), yielded_s > 0)


def test_a_site_that_yields_never_orders_again() -> None:
    foreign = Foreign(OnForeignClock.YIELD)
    assert not foreign.decide(900, 1410, 1.0)
    assert foreign.yields(600.0)
    assert not foreign.yields(601.5)
    assert foreign.told_lately(2.0).startswith("ForeignClock: 900 MHz were ordered, and the SM clock ran at 1410 MHz")
    assert foreign.told_lately(700.0) == ""


@pytest.mark.parametrize("policy", ["reassert", "yield"])
def test_policies_are_named_as_the_chart_names_them(policy: str) -> None:
    assert OnForeignClock(policy) == policy
