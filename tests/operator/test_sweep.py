"""The sweep's clocks and blocks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from joulepath_operator.order import kind_of
from joulepath_operator.sweep import LOWEST_SHARE, choose_clocks, make_sweep

A100 = tuple(range(1410, 200, -15))


def test_clocks_of_an_a100_are_denser_near_the_top() -> None:
    clocks = choose_clocks(A100, 1410, 12)
    assert len(clocks) == 12
    assert clocks[0] == 1410
    assert abs(clocks[-1] - 1410 * LOWEST_SHARE) <= 15
    steps = [high - low for high, low in pairwise(clocks)]
    assert steps[0] < steps[-1]


def test_a_site_s_cap_is_the_top() -> None:
    assert choose_clocks(A100, 1200, 5)[0] == 1200


@given(st.sets(st.integers(200, 2000), min_size=1), st.integers(200, 2000), st.integers(3, 40))
def test_only_supported_clocks_up_to_the_default_one_are_chosen(supported: set[int], default: int, count: int) -> None:
    clocks = choose_clocks(tuple(supported), default, count)
    assert set(clocks) <= {clock for clock in supported if clock <= default}
    assert len(clocks) <= count
    assert list(clocks) == sorted(set(clocks), reverse=True)


@given(st.lists(st.integers(200, 2000), min_size=3, unique=True), st.integers(1, 100), st.text())
def test_every_clock_is_swept_once_between_returns_to_default(clocks: list[int], iterations: int, seed: str) -> None:
    descending = sorted(clocks, reverse=True)
    sweep = make_sweep(descending, iterations, seed)
    assert sweep.iterations_per_block == iterations + 1
    assert sorted(clock for clock in sweep.clocks_mhz if clock) == sorted(descending[1:])
    assert sweep.clocks_mhz[0] == sweep.clocks_mhz[-1] == 0
    runs = "".join("0" if clock == 0 else "x" for clock in sweep.clocks_mhz).split("0")
    assert max(map(len, runs)) <= 3
    assert make_sweep(descending, iterations, seed) == sweep


def test_the_order_differs_from_job_to_job() -> None:
    clocks = choose_clocks(A100, 1410, 12)
    assert make_sweep(clocks, 3, "one").clocks_mhz != make_sweep(clocks, 3, "two").clocks_mhz


def test_the_kind_of_an_instruction() -> None:
    assert [kind_of(label) for label in ("F0", "B11", "3:W2")] == ["F", "B", "W"]
