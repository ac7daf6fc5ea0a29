"""Whether an earlier profile holds: by what is measured again, within the errors of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from joulepath_crds import (
    BlockingPower,
    Coordinates,
    EnergyProfileSpec,
    GpuReport,
    KindProfile,
    ProfilePoint,
    RankReport,
    Reuse,
    StageProfile,
    SwitchingLag,
    TargetLag,
    Topology,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.figures.agreement import agreement, check_clocks, merged, unusable

TOP = 1400
CLOCKS = (1400, 1300, 1200, 1100, 1000, 900)
CHECKED = (1400, 1200, 1000)
ERRORS = (0.003, 0.012)
"""Of time and energy, as fractions: what a few iterations tell at 1% and 2% of noise."""
SMALL = (0.003, 0.006)
"""So small that they hide no other shape."""

Change = Callable[[int, str, int], tuple[float, float]]
"""Factors of time and energy by stage, kind and clock."""


def same(stage: int, kind: str, clock: int) -> tuple[float, float]:
    return 1.0, 1.0


def profile(
    change: Change = same,
    clocks: tuple[int, ...] = CLOCKS,
    *,
    errors: tuple[float, float] = ERRORS,
    seed: int | None = None,
    **fields: Any,
) -> EnergyProfileSpec:
    """Four stages, an F and a B each, with noise if there is a seed."""
    draw = np.random.default_rng(seed)

    def point(stage: int, kind: str, clock: int) -> ProfilePoint:
        noise = np.exp(draw.normal(0, errors)) if seed is not None else (1.0, 1.0)
        time, energy = change(stage, kind, clock)
        seconds = (0.05 if kind == "F" else 0.1) * (1 + 0.1 * stage) * (0.3 + 0.7 * TOP / clock) * time
        joules = seconds * (150 + 200 * (clock / TOP) ** 2.5) / time * energy
        return ProfilePoint(
            clock_mhz=clock,
            time_s=seconds * float(noise[0]),
            energy_j=joules * float(noise[1]),
            time_standard_error_s=seconds * errors[0],
            energy_standard_error_j=joules * errors[1],
        )

    given: dict[str, Any] = {
        "topology": Topology(schedule="1F1B", stages=4, microbatches=8, gpu_model="A100", default_clock_mhz=TOP),
        "blocking_power": tuple(BlockingPower(clock_mhz=clock, power_w=0.05 * clock) for clock in clocks),
        "iteration_time_s": 2.0,
        "energy_per_iteration_j": 3000.0,
        "stages": tuple(
            StageProfile(
                stage=stage,
                kinds=tuple(
                    KindProfile(kind=kind, points=tuple(point(stage, kind, clock) for clock in clocks)) for kind in "BF"
                ),
            )
            for stage in range(4)
        ),
    }
    return EnergyProfileSpec(**(given | fields))


def outcomes(change: Change) -> Counter[Reuse]:
    """Of forty pairs of runs with noise, between which this has changed."""
    pairs = ((profile(seed=seed), profile(change, CHECKED, seed=1000 + seed)) for seed in range(40))
    return Counter(agreement(old, now).reuse for old, now in pairs)


def test_what_has_not_changed_is_found_the_same_whatever_the_noise() -> None:
    assert outcomes(same)[Reuse.REFUSED] == 0
    assert outcomes(same)[Reuse.REUSED] >= 36


@pytest.mark.parametrize(("time", "energy"), [(1.03, 1.0), (1.0, 1.05), (0.9, 0.8), (1.5, 1.6)])
def test_what_has_changed_by_one_factor_is_refreshed_and_no_less(time: float, energy: float) -> None:
    found = outcomes(lambda stage, kind, clock: (time, energy))
    assert found[Reuse.REFUSED] == 0
    assert found[Reuse.REFRESHED] == 40


def test_each_stage_and_kind_has_a_factor_of_its_own() -> None:
    """A layer more on one stage, recomputation in all backwards: the curves by clock are the same."""

    def moved(stage: int, kind: str, clock: int) -> tuple[float, float]:
        factor = (1.2 if stage == 1 else 0.95) * (1.3 if kind == "B" else 1.0)
        return factor, factor

    found = agreement(profile(errors=SMALL), profile(moved, CHECKED, errors=SMALL))
    assert found.reuse is Reuse.REFRESHED
    assert found.sure
    assert found.factors[1, "B"] == pytest.approx((1.56, 1.56))
    assert found.factors[0, "F"] == pytest.approx((0.95, 0.95))


@pytest.mark.parametrize("of", [0, 1])
def test_what_has_changed_at_some_clocks_only_is_refused(of: int) -> None:
    def bent(stage: int, kind: str, clock: int) -> tuple[float, float]:
        factor = 1.06 if clock <= 1000 else 1.0
        return (factor, factor) if of == 0 else (1.0, factor)

    assert outcomes(bent)[Reuse.REFUSED] == 40
    found = agreement(profile(), profile(bent, CHECKED))
    assert found.reuse is Reuse.REFUSED
    assert not found.factors
    assert "at default clocks and at 1200, 1000 MHz work has changed by" in found.message


def test_a_slight_bend_is_no_refusal_but_is_not_sure_either() -> None:
    def bent(stage: int, kind: str, clock: int) -> tuple[float, float]:
        return (1.008 if clock <= 1000 else 1.0), 1.0

    exact = (1e-6, 1e-6)
    found = agreement(profile(errors=exact), profile(bent, CHECKED, errors=exact))
    assert (found.reuse, found.sure) == (Reuse.REFRESHED, False)
    assert merged(profile(frontier_uncertainty=0.008), profile(bent, CHECKED), found, 0).frontier_uncertainty is None


def test_errors_that_could_hide_another_shape_leave_it_unsure() -> None:
    large = (0.03, 0.03)
    steeper = profile(lambda stage, kind, clock: ((TOP / clock) ** 0.15, 1.0), CHECKED, errors=large)
    found = agreement(profile(errors=large), steeper)
    assert (found.reuse, found.sure) == (Reuse.REUSED, False)


def test_other_default_clocks_under_load_are_refused_with_both_values() -> None:
    found = agreement(profile(), profile(clocks=(1300, 1200, 1000)))
    assert found.reuse is Reuse.REFUSED
    assert found.message == "default clocks came to 1400 MHz under load then, and come to 1300 MHz now"


def test_default_clocks_a_step_apart_are_compared_as_such() -> None:
    found = agreement(profile(), profile(clocks=(1385, 1200, 1000)))
    assert found.reuse is Reuse.REUSED
    points = merged(profile(), profile(clocks=(1385, 1200, 1000)), found, 0).stages[0].kinds[0].points
    assert [point.clock_mhz for point in points] == [1385, 1300, 1200, 1100, 1000, 900]


def test_work_that_the_profile_lacks_and_clocks_that_were_missed_are_refused() -> None:
    now = profile(clocks=CHECKED)
    stages = tuple(one.model_copy(update={"kinds": one.kinds[:1]}) for one in now.stages)
    assert agreement(profile(stages=stages), now).reuse is Reuse.REFUSED
    assert agreement(profile(), profile(clocks=(1400, 1200))).reuse is Reuse.REFUSED


def test_without_stated_errors_a_percent_or_two_may_be_noise() -> None:
    def noisy(stage: int, kind: str, clock: int) -> tuple[float, float]:
        return (1.01 if (stage + clock // 200) % 2 else 0.99), 1.0

    assert agreement(profile(errors=(0.0, 0.0)), profile(noisy, CHECKED)).reuse is Reuse.REUSED
    assert agreement(profile(errors=(0.001, 0.001)), profile(noisy, CHECKED)).reuse is Reuse.REFUSED


def test_points_of_both_are_joined_and_those_measured_twice_are_surer() -> None:
    lag = SwitchingLag(up_median_s=0.002, up_p95_s=0.004, down_median_s=0.002, down_p95_s=0.004, samples=9)
    old = profile(errors=SMALL, iteration_time_noise_s=0.01, lag=lag, frontier_uncertainty=0.008)
    now = profile(lambda stage, kind, clock: (1.1, 1.2), CHECKED, errors=SMALL, iteration_time_s=2.2)
    found = merged(old, now, agreement(old, now), lowest_mhz=950)
    for stage, before in zip(found.stages, profile(lambda *_: (1.1, 1.2)).stages, strict=True):
        for kind, true in zip(stage.kinds, before.kinds, strict=True):
            assert [point.clock_mhz for point in kind.points] == [1400, 1300, 1200, 1100, 1000]
            for point, other in zip(kind.points, true.points, strict=False):
                assert (point.time_s, point.energy_j) == pytest.approx((other.time_s, other.energy_j), rel=1e-3)
                twice = point.clock_mhz in CHECKED
                assert point.time_standard_error_s / point.time_s == pytest.approx(0.003 / (2**0.5 if twice else 1))
    assert [one.clock_mhz for one in found.blocking_power] == [1400, 1300, 1200, 1100, 1000, 900]
    assert (found.lag, found.frontier_uncertainty) == (lag, 0.008)
    assert found.iteration_time_noise_s == pytest.approx(0.011)


def test_the_few_switches_of_a_check_do_not_replace_what_a_whole_sweep_has_seen() -> None:
    slow = TargetLag(clock_mhz=1050, direction="up", median_s=0.25, p95_s=0.3, samples=40)
    often = SwitchingLag(up_median_s=0.2, up_p95_s=0.3, down_median_s=0.1, down_p95_s=0.2, samples=80, targets=(slow,))
    seldom = SwitchingLag(up_median_s=0.02, up_p95_s=0.03, down_median_s=0.01, down_p95_s=0.02, samples=3)
    old, now = profile(lag=often), profile(clocks=CHECKED, lag=seldom)
    assert merged(old, now, agreement(old, now), lowest_mhz=0).lag == often


def test_clocks_to_check_at_lie_between_others_and_are_ones_that_the_gpus_have() -> None:
    every = range(800, 1401, 10)
    assert check_clocks(profile(), every, 840) == (1200, 1000)
    assert check_clocks(profile(), [1400, 1300, 1100, 900], 840) == (1300, 1100)
    assert check_clocks(profile(), every, 1150) == (1300, 1200)
    assert check_clocks(profile(), every, 1250) == ()
    assert check_clocks(profile(clocks=(1400, 1200, 1000)), every, 840) == ()


def gang(**gpu: Any) -> tuple[Gang, Topology]:
    """Two ranks whose GPUs are these."""
    given: dict[str, Any] = {"model": "A100", "default_clock_mhz": TOP, "supported_clocks_mhz": CLOCKS} | gpu
    gpus = {uuid: GpuReport(uuid=uuid, **given) for uuid in ("GPU-0", "GPU-1")}
    ranks = tuple(
        RankReport(
            rank=number,
            pod="pod",
            pod_uid="pod",
            gpu_uuid=f"GPU-{number}",
            coordinates=Coordinates(pipeline=number),
            stages=(number,),
            stage_count=2,
            schedule="1F1B",
            microbatches=8,
        )
        for number in range(2)
    )
    found = Gang(0, 2, ranks, gpus, {0: 0.0, 1: 0.0})
    return found, found.topology()


@pytest.mark.parametrize(
    ("gpu", "says"),
    [
        ({"model": "H100"}, ("A100", "H100")),
        ({"default_clock_mhz": 1300}, ("1400 MHz", "1300 MHz")),
        ({"power_cap_w": 300.0}, ("400 W", "300 W")),
        ({"driver": "590.1"}, ("580.65", "590.1")),
    ],
)
def test_other_gpus_are_refused_with_both_values(gpu: dict[str, Any], says: tuple[str, str]) -> None:
    old = profile(driver="580.65", power_cap_w=400.0)
    known = {"driver": "580.65", "power_cap_w": 400.0}
    assert unusable(old, *gang(**known)) is None
    why = unusable(old, *gang(**(known | gpu)))
    assert why is not None
    assert all(value in why for value in says)


def test_what_is_not_known_of_gpus_is_left_to_the_check() -> None:
    assert unusable(profile(driver="580.65", power_cap_w=400.0), *gang()) is None
    assert unusable(profile(), *gang(driver="580.65", power_cap_w=400.0)) is None
