"""The sweep's clocks and blocks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_crds import Arm, BlockReport, Instruction, JobPlanSpec, Purpose, Sweep
from joulepath_operator.figures.clocks import LOWEST_SHARE, choose_clocks, make_sweep, next_sweep, swept
from joulepath_operator.figures.profile import iteration_noise_s

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
    assert max(map(len, runs)) <= 1
    assert make_sweep(descending, iterations, seed) == sweep
    assert make_sweep(descending, iterations, seed, again=True) != sweep


@given(st.integers(1, 100), st.integers(1, 500))
def test_time_that_grows_as_the_clock_falls_stays_within_the_slowdown(percent: int, count: int) -> None:
    clocks = choose_clocks(A100, 1410, 3 + count % 38, percent / 100)
    assert clocks[0] == 1410
    assert 1410 / clocks[-1] <= 1 + percent / 100 + 1e-9


def test_rounds_add_up() -> None:
    first = make_sweep((1410, 1300, 1200), 3, "job")
    third = next_sweep(next_sweep(first, (1250, 1350), 0.01), (1275,), 0.01)
    assert swept(third) == (*first.clocks_mhz, 1250, 1350, 1275)
    assert third.earlier is not None
    assert (third.earlier.iterations, third.earlier.noise_s) == (7 * 4, 0.01)
    assert third.iterations_per_block == 4


def test_the_order_differs_from_job_to_job() -> None:
    clocks = choose_clocks(A100, 1410, 12)
    assert make_sweep(clocks, 3, "one").clocks_mhz != make_sweep(clocks, 3, "two").clocks_mhz


def test_the_kind_of_an_instruction() -> None:
    assert [Instruction.parse(label, 3).kind for label in ("F0", "B11", "3:W2")] == ["F", "B", "W"]


def test_noise_is_that_of_the_iterations_at_default_clocks(new_world: Callable[..., Any]) -> None:
    clocks = (0, 1400, 0, 0, 1300, 0)
    plan = JobPlanSpec(
        energy_plan="plan",
        job="gpt3",
        job_uid="u",
        purpose=Purpose.SWEEP,
        hash="h",
        sweep=Sweep(clocks_mhz=clocks, iterations_per_block=4),
        default_clock_mhz=1410,
    )

    def noise(seconds: dict[int, float]) -> float:
        blocks = tuple(
            BlockReport(
                hash="h",
                block=block,
                arm=Arm.SWEEP,
                iterations=3,
                iteration_time_s=time_s,
                iteration_time_deviation_s=0.02,
                energy_per_iteration_j=1.0,
            )
            for block, time_s in seconds.items()
        )
        ranks = new_world().nodes()[0].report.ranks
        return iteration_noise_s(plan, [rank.model_copy(update={"blocks": blocks}) for rank in ranks])

    slow = {1: 3.0, 4: 4.0}  # other clocks: not what is asked for
    assert noise({0: 2.0, 2: 2.0, 3: 2.0, 5: 2.0, **slow}) == pytest.approx(0.02)
    assert noise({0: 1.99, 2: 2.01, 3: 1.99, 5: 2.01, **slow}) == pytest.approx(
        0.02 + 1.1 * 3.182 * 0.01155 / 2, rel=0.01
    )
    assert noise({0: 1.99, 2: 2.01, 3: 1.99, **slow}) == 0.0, "too few blocks to know"
