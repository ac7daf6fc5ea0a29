"""A power-capped node, from the GPU to the plan: what its agent measures, and what the planner makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from joulepath_bridge.pipeline import pipeline_of, profile_of
from joulepath_crds import Granularity, JobPlanSpec, Purpose
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.facts.request import Delays, PlanRequest, PlanResult
from joulepath_operator.figures.clocks import choose_clocks, make_sweep
from joulepath_operator.figures.coverage import coverage
from joulepath_operator.figures.profile import build_profile
from joulepath_operator.planning.compute import compute
from joulepath_planner import fit, simulate
from tests.agent.room import LocalAgent, Room, wait_until
from virtual_gpus.model import parametric

ORDERS = (("F0", "F1", "B0", "F2", "B1", "F3", "B2", "B3"), ("F0", "B0", "F1", "B1", "F2", "B2", "F3", "B3"))
SCALE = 0.3


def gang_of(agent: LocalAgent) -> Gang | None:
    """The two ranks as the operator sees them, once both have run a whole iteration; asked a few times a second."""
    time.sleep(0.2)
    report = agent.report()
    gang = Gang.of([NodeJob("node-a", job, report.gpus) for job in report.jobs])
    return gang if gang is not None and gang.complete and gang.ordered else None


@pytest.mark.slow
@pytest.mark.parametrize("cap_w", [400.0, 300.0])
def test_a_capped_node_is_planned_by_instruction_like_one_that_is_not(room: Callable[..., Room], cap_w: float) -> None:
    model = parametric({"stage_scale": (1.0, 0.6), "power_cap_w": cap_w})
    made: Room = room(model, gpus=2, time_scale=SCALE, lag_ms=2.0, power_variation=0.0)
    agent = made.agent()
    for stage in range(2):
        places: dict[str, Any] = {"ordinal": stage, "rank": stage, "stages": [stage], "world_size": 2, "stage_count": 2}
        made.peer(**places, order=ORDERS[stage], iterations=100_000)

    def settled() -> bool:
        gang = gang_of(agent)
        return gang is not None and all(gpu.settled_clock_mhz for gpu in gang.gpus.values())

    wait_until(settled, "it is known where the GPUs settle")
    gang = gang_of(agent)
    assert gang is not None
    top_w = dict(zip(model.clocks.all_mhz, model.kernels[0].power_w, strict=True))
    reached_mhz = max(clock for clock, watts in top_w.items() if watts <= cap_w)
    assert gang.default_clock_mhz == pytest.approx(reached_mhz, abs=2 * model.clocks.step_mhz)  # heat leaks some watts
    assert gang.topology().default_clock_mhz == 1410

    clocks = choose_clocks(gang.supported_clocks_mhz(), gang.default_clock_mhz, 4)
    # One clock that a cap doesn't let it reach: as a sweep holds that was begun before it was known where GPUs settle.
    sweep = make_sweep((clocks[0], *sorted({1395, *clocks[1:]}, reverse=True)), 3, "seed")
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid="job-uid",
        purpose=Purpose.SWEEP,
        hash="sweep",
        sweep=sweep,
        activate_at=max(rank.iteration for rank in gang.ranks) + 5,
        default_clock_mhz=gang.default_clock_mhz,
    )
    agent.plans(spec.to_api())

    def is_swept() -> bool:
        seen = gang_of(agent)
        return seen is not None and coverage(seen.ranks, sweep).complete and seen.lag() is not None

    wait_until(is_swept, "every clock and both ways of switching are measured")
    gang = gang_of(agent)
    assert gang is not None
    assert not any(rank.reason.startswith("ForeignClock") for rank in gang.ranks), "a cap is nobody's order"
    profile = build_profile(gang, gang.topology(), sweep.clocks_mhz, Delays(), "job")
    held = {point.clock_mhz for stage in profile.stages for kind in stage.kinds for point in kind.points}
    assert profile.default_clock_mhz == gang.default_clock_mhz == max(held)
    assert (1395 in held) == (cap_w == 400.0), "what was held above the cap ran at default clocks"

    orders = tuple(tuple(f"{stage}:{label}" for label in order) for stage, order in enumerate(ORDERS))
    supported = gang.supported_clocks_mhz()
    likely = fit(profile_of(profile), supported).likely
    pipeline = pipeline_of(profile, orders, profile=likely, transfers_s={}, overheads_s={}, tails_s={})
    request = PlanRequest(
        inputs="",
        profile=profile,
        orders=orders,
        delays=Delays(),
        control_time_s=simulate(pipeline).iteration_time_s,
        max_slowdown=0.0,
        granularity=Granularity.AUTO,
        lag=gang.lag(),
        supported_clocks_mhz=supported,
    )
    result = compute(request)
    assert isinstance(result, PlanResult), result
    assert result.granularity is Granularity.INSTRUCTION
    assert all(clock < gang.default_clock_mhz for stage in result.stages for clock in stage.clocks_mhz)
