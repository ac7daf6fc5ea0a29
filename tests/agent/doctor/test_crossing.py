"""When a switch came in force, from looks at the clock."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulepath_agent.doctor.crossing import switch_of

STEP_MHZ = 15


def looks(
    before_mhz: int, after_mhz: int, lag_s: float, *, wavers_mhz: int = 0, seed: int = 0
) -> list[tuple[float, int]]:
    """A look each millisecond, for three lags and 30 ms more."""
    chance, count = Random(seed), round(1e3 * (3 * lag_s + 0.03))
    return [
        (at / 1e3, (after_mhz + STEP_MHZ * round(chance.uniform(-wavers_mhz, wavers_mhz) / STEP_MHZ)))
        if at / 1e3 >= lag_s
        else (at / 1e3, before_mhz)
        for at in range(count)
    ]


@given(
    st.integers(14, 94), st.integers(14, 94), st.floats(0.003, 0.3), st.sampled_from([0, 15, 30]), st.integers(0, 99)
)
def test_a_switch_is_seen_at_its_first_look_however_the_clock_wavers_afterwards(
    low: int, high: int, lag_s: float, wavers_mhz: int, seed: int
) -> None:
    before, after = low * STEP_MHZ, high * STEP_MHZ
    switch = switch_of(before, looks(before, after, lag_s, wavers_mhz=wavers_mhz, seed=seed), STEP_MHZ)
    assert switch is not None
    assert abs(switch.settled_mhz - after) <= wavers_mhz
    if abs(after - before) > 6 * max(STEP_MHZ, wavers_mhz):
        assert switch.lag_s == pytest.approx(lag_s, abs=0.0021)


def test_a_capped_gpu_is_there_where_it_settles() -> None:
    switch = switch_of(900, looks(900, 1290, 0.02, wavers_mhz=15), STEP_MHZ)
    assert switch is not None
    assert switch.lag_s == pytest.approx(0.02, abs=0.0011)


def test_a_switch_too_small_to_be_told_from_noise_has_no_lag() -> None:
    switch = switch_of(1290, looks(1290, 1305, 0.02, wavers_mhz=15), STEP_MHZ)
    assert switch is not None
    assert switch.lag_s is None


def test_a_switch_while_nobody_looked_has_no_lag() -> None:
    seen = [look for look in looks(900, 1410, 0.02) if not 0.01 < look[0] < 0.025]
    switch = switch_of(900, seen, STEP_MHZ)
    assert switch is not None
    assert switch.lag_s is None


def test_a_few_looks_tell_nothing() -> None:
    assert switch_of(900, looks(900, 1410, 0.02)[:8], STEP_MHZ) is None
