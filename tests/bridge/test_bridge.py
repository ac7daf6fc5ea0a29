"""What was measured reaches the planner as it was measured, and the plan reaches the stages as it was made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from joulepath_bridge.lags import ASSUMED_LAG_S, lags_of, lags_or_assumed
from joulepath_bridge.pipeline import pipeline_of, profile_of, tails_of, transfers_of
from joulepath_bridge.stages import stage_plans
from joulepath_bridge.switching import pause_of
from joulepath_crds import (
    INSTRUCTION_KINDS,
    BlockingPower,
    EnergyProfileSpec,
    KindProfile,
    ProfilePoint,
    StageProfile,
    SwitchingCost,
    SwitchingLag,
    Topology,
    Transfer,
)
from joulepath_planner import (
    Instruction,
    LagTable,
    Pipeline,
    Point,
    fit,
    one_f_one_b,
    plan,
    simulate,
    zb_h1,
)
from joulepath_planner.inputs.instruction import KINDS
from joulepath_planner.inputs.pipeline import Link

CAP_MHZ = 1300
CLOCKS_MHZ = (1400, 1300, 1200, 1000)
ORDERS = [[f"{one.stage}:{one}" for one in order] for order in one_f_one_b(2, 3).orders]


def _point(clock_mhz: int, base_s: float) -> ProfilePoint:
    time_s = base_s * 1400 / clock_mhz
    return ProfilePoint(
        clock_mhz=clock_mhz,
        time_s=time_s,
        energy_j=time_s * 300 * (clock_mhz / 1400) ** 2,
        time_standard_error_s=time_s / 100,
        energy_standard_error_j=time_s,
    )


SPEC = EnergyProfileSpec(
    topology=Topology(
        schedule="1F1B", stages=2, microbatches=3, gpu_model="A100", default_clock_mhz=CAP_MHZ, tensor_parallel=4
    ),
    stages=tuple(
        StageProfile(
            stage=stage,
            tail_s=0.02 * stage,
            kinds=tuple(
                KindProfile(kind=kind, points=tuple(_point(clock, base_s) for clock in CLOCKS_MHZ))
                for kind, base_s in (("F", 0.05), ("B", 0.1 + 0.02 * stage))
            ),
        )
        for stage in range(2)
    ),
    transfers=(
        Transfer(from_stage=0, to_stage=1, kind="F", delay_s=0.001),
        Transfer(from_stage=1, to_stage=0, kind="B", delay_s=0.002),
    ),
    blocking_power=(BlockingPower(clock_mhz=1300, power_w=90.0), BlockingPower(clock_mhz=1000, power_w=70.0)),
    iteration_time_s=1.0,
    energy_per_iteration_j=500.0,
)
LAG = SwitchingLag(up_median_s=0.002, up_p95_s=0.004, down_median_s=0.003, down_p95_s=0.005, samples=9)


def _job(
    transfers_s: dict[Link, float] | None = None,
    tails_s: dict[int, float] | None = None,
) -> Pipeline:
    return pipeline_of(
        SPEC,
        ORDERS,
        profile=fit(profile_of(SPEC), range(1000, 1401, 50)).profile,
        transfers_s=transfers_s or {},
        overheads_s={(0, "F"): 0.003},
        tails_s=tails_s or {},
    )


def test_points_are_those_up_to_the_default_clock_with_their_errors() -> None:
    profile = profile_of(SPEC)
    assert profile.default_clock_mhz(0) == CAP_MHZ
    seen = _point(1000, 0.05)
    assert profile.points[0, "F"][-1] == Point(1000, seen.time_s, seen.energy_j, seen.time_s / 100, seen.time_s)
    assert profile.blocking_power_w == {1000: 70.0, 1300: 90.0}
    assert profile_of(SPEC.model_copy(update={"blocking_power": ()})).blocking_power_w == 0.0


def test_a_job_has_the_points_that_it_is_given_and_the_gpus_of_its_stages() -> None:
    job = _job()
    assert [point.clock_mhz for point in job.profile.points[1, "B"]] == list(range(1300, 999, -50))
    assert job.schedule.orders == one_f_one_b(2, 3).orders
    assert (job.gpu_count, job.overhead(0, "F"), job.overhead(1, "F")) == (8, 0.003, 0.0)


def test_what_is_seen_goes_before_what_was_measured_with_the_profile() -> None:
    stored, seen = _job(), _job({(0, 1, "F"): 0.007}, {0: 0.5})
    assert stored.transfer_s == {(0, 1, "F"): 0.001, (1, 0, "B"): 0.002}
    assert stored.tail_s == {0: 0.0, 1: 0.02}
    assert seen.transfer_s == {(0, 1, "F"): 0.007, (1, 0, "B"): 0.002}
    assert seen.tail_s == {0: 0.5, 1: 0.02}


def test_what_single_instructions_do_alone_is_theirs_and_no_longer_their_kind_s() -> None:
    fixed_s = {(1, "B"): 0.01}
    plain, profile = profile_of(SPEC), profile_of(SPEC, fixed_s)
    assert profile.points[0, "B"] == plain.points[0, "B"]
    for point, measured in zip(profile.points[1, "B"], plain.points[1, "B"], strict=True):
        assert point.time_s == pytest.approx(measured.time_s - 0.01)
        waited_j = 0.01 * plain.wait_power_w(point.clock_mhz)
        assert point.energy_j == pytest.approx(measured.energy_j - waited_j)
    own = {"gaps_s": {"0:F1": 0.02}, "extras_s": {"1:B2": 0.03}}
    job = pipeline_of(SPEC, ORDERS, profile=profile, transfers_s={}, overheads_s={(0, "F"): 0.003}, tails_s={}, **own)
    assert [job.gap(Instruction(0, "F", each)) for each in range(3)] == [0.003, 0.02, 0.003]
    assert [job.extra(Instruction(1, "B", each)) for each in range(3)] == [0.0, 0.0, 0.03]
    # Three backwards that do a hundredth each, and one that does three by itself, make the same sum.
    smeared = _job().profile.default(1, "B").time_s
    assert 3 * smeared == pytest.approx(3 * profile.default(1, "B").time_s + 0.03)


def test_more_than_was_measured_is_never_left_out() -> None:
    profile = profile_of(SPEC, {(0, "F"): 10.0})
    assert all(point.time_s > 0 and point.energy_j > 0 for point in profile.points[0, "F"])


def test_of_another_schedule_only_what_it_has_is_taken() -> None:
    assert transfers_of(SPEC, one_f_one_b(1, 3)) == {}
    assert tails_of(SPEC, one_f_one_b(1, 3)) == {0: 0.0}
    assert transfers_of(SPEC, zb_h1(2, 3)) == {(0, 1, "F"): 0.001, (1, 0, "I"): 0.002}
    assert transfers_of(SPEC) == transfers_of(SPEC, one_f_one_b(2, 3)) == _job().transfer_s


def test_lags_are_the_measured_ones_or_safe() -> None:
    assert lags_or_assumed(LAG, CAP_MHZ) == lags_of(LAG, CAP_MHZ) == LagTable(0.002, 0.003, 0.004, 0.005)
    assert lags_or_assumed(None, CAP_MHZ) == LagTable.constant(ASSUMED_LAG_S)


def test_a_target_has_its_own_lags_and_is_raised_to_as_it_is_lowered_to_where_that_is_all_known() -> None:
    known = ((900, "up", 0.02, 20), (900, "down", 0.03, 3), (800, "down", 0.04, 3))
    rows = ((0, "up", 0.01, 3), (CAP_MHZ, "up", 0.5, 3), (700, "up", 0.02, 19), (700, "down", 0.03, 3), *known)
    told = [
        {"clockMHz": clock, "direction": way, "medianSeconds": s, "p95Seconds": 2 * s, "samples": samples}
        for clock, way, s, samples in rows
    ]
    table = lags_of(SwitchingLag.from_api(LAG.to_api() | {"targets": told}), CAP_MHZ)
    assert table.of(CAP_MHZ) == LagTable(0.01, 0.01, 0.02, 0.02), "nothing is lowered to default clocks"
    assert table.of(900) == LagTable(0.02, 0.03, 0.04, 0.06)
    assert table.of(800) == LagTable(0.04, 0.04, 0.08, 0.08)
    assert table.of(700) == LagTable(0.03, 0.03, 0.06, 0.06), "a few raises don't overrule what is lowered to it"
    assert table.of(1000) == table
    assert replace(table, targets={}) == LagTable(0.003, 0.003, 0.005, 0.005)


@pytest.mark.parametrize("pause_s", [0.0005, 0.003, 0.02])
def test_the_pause_of_a_switch_is_found_from_what_switching_at_each_instruction_cost(pause_s: float) -> None:
    job = _job()
    clocks = [tuple((1300, 1250)[at % 2] for at in range(len(order))) for order in ORDERS]
    free, dear = (simulate(job, clocks, replace(LagTable.constant(0.0), pause_s=one)) for one in (0.0, pause_s))
    longer_s = dear.iteration_time_s - free.iteration_time_s
    found = pause_of(_cost(longer_s, longer_s / 10), job)
    assert found is not None
    assert found.planned_s == found.seconds == pytest.approx(pause_s, rel=0.15)
    assert found.half_s == pytest.approx(found.seconds / 10)


@pytest.mark.parametrize(("longer_s", "half_s"), [(-0.01, 0.001), (0.001, 0.002), (0.0, 0.0)])
def test_a_cost_that_is_within_its_own_interval_is_planned_as_none(longer_s: float, half_s: float) -> None:
    found = pause_of(_cost(longer_s, half_s), _job())
    assert found is not None
    assert found.planned_s == 0.0
    assert (found.half_s > 0) is (half_s > 0)


def _cost(longer_s: float, half_s: float) -> SwitchingCost:
    return SwitchingCost(clocks_mhz=(1250, 1200), longer_s=longer_s, longer_half_s=half_s, more_j=0.0, more_half_j=0.0)


def test_each_stage_is_told_its_order_its_clocks_and_how_long_they_take() -> None:
    job = _job()
    made = plan(job, slowdown=0.1)
    told = stage_plans(made, CAP_MHZ)
    assert [one.stage for one in told] == [0, 1]
    assert [[f"{one.stage}:{label}" for label in one.order] for one in told] == ORDERS
    for one in told:
        for label, clock, duration_s in zip(one.order, one.clocks_mhz, one.durations_s, strict=True):
            kind = Instruction.parse(label, one.stage).kind
            expected = job.profile.at(one.stage, kind, clock or CAP_MHZ)[0]
            assert duration_s == pytest.approx(expected, rel=1e-5)
    assert 0 < max(max(one.clocks_mhz) for one in told) < CAP_MHZ
    seen = simulate(job, [one.clocks_mhz for one in told])
    assert seen.energy_j == pytest.approx(made.energy_j)


def test_every_kind_of_the_contract_is_one_of_the_planners() -> None:
    assert set(INSTRUCTION_KINDS) <= set(KINDS)
