"""The story of a job without a pipeline: two replicas of one stage, where no GPU waits for another."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest

from joulepath_crds import Coordinates, EnergyPlanSpec, Granularity, InstructionTime, RankReport
from joulepath_planner import Pipeline, Profile, Simulation, one_f_one_b, simulate
from tests.operator.conftest import MICROBATCHES, OVERHEAD_S, TAIL_S, World, truth
from tests.planner.pipelines import BLOCKING_POWER_W


@lru_cache
def alone() -> Pipeline:
    """The first stage of the published pipeline, by itself."""
    points = {(0, kind): truth().profile.points[0, kind] for kind in "FB"}
    return Pipeline(
        one_f_one_b(1, MICROBATCHES),
        Profile(points, BLOCKING_POWER_W),
        overhead_s={(0, kind): OVERHEAD_S for kind in "FB"},
        tail_s={0: TAIL_S},
    )


@lru_cache
def iteration(clocks: tuple[tuple[int | None, ...], ...] | None) -> Simulation:
    return simulate(alone(), clocks)


class Replicas(World):
    """Ranks that tell forward and backward."""

    size = 2
    schedule = "NoPipeline"

    def simulated(self, clocks: tuple[tuple[int | None, ...], ...] | None) -> Simulation:
        return iteration(clocks)

    def place(self, rank: int) -> int:
        return 0

    def _rank(self, rank: int) -> RankReport:
        events = iteration(None).ranks[0]
        told = self.schedule != "IterationsOnly"
        return (
            super()
            ._rank(rank)
            .model_copy(
                update={
                    "coordinates": Coordinates(data=rank),
                    "data_parallel": self.size,
                    "stages": (0,),
                    "stage_count": 1,
                    "schedule": self.schedule,
                    "order": tuple(str(event.instruction) for event in events) if told else (),
                    "instructions": tuple(self._measurements(0)),
                    "timeline": tuple(
                        InstructionTime(
                            instruction=str(event.instruction),
                            stage=0,
                            begin_s=event.start_s,
                            end_s=event.start_s + event.duration_s,
                        )
                        for event in events
                    ),
                }
            )
        )


def job(percent: float) -> Replicas:
    world = Replicas(EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "maxSlowdownPercent": percent}))
    world.settle()
    return world


@pytest.fixture(scope="module")
def unmoved() -> Replicas:
    """A job that may not be slowed, profiled."""
    world = job(0)
    world.run(90)
    return world


def test_without_any_slowdown_it_is_profiled_and_told_what_slowdown_would_buy(unmoved: Replicas) -> None:
    status = unmoved.status
    assert status.phase == "Idle"
    assert unmoved.plan is None, "no sweep is left at the nodes"
    told = {one.type: (one.status, one.reason) for one in status.conditions}
    assert told["Profiled"] == ("True", "Measured")
    assert told["Planned"] == told["Active"] == ("False", "NothingToSave")
    assert told["Degraded"][0] == "False"
    assert "spec.maxSlowdownPercent" in status.message
    assert "no pipeline" in status.message
    assert (status.predicted, status.savings, status.measured) == ("0.0%", None, None)
    assert len(status.frontier) == 33
    assert status.progress is not None
    assert status.progress.endswith(" at +5%")


def test_what_it_tells_is_what_a_plan_at_that_slowdown_comes_close_to(unmoved: Replicas) -> None:
    assert unmoved.status.progress is not None
    told = float(unmoved.status.progress.partition("%")[0]) / 100
    world = job(5)
    world.run(200)
    measured, plan = world.status.measured, world.status.plan
    assert world.status.phase == "Active"
    assert measured is not None
    assert plan is not None
    assert plan.granularity in (Granularity.KIND, Granularity.RANK)
    assert told - 0.02 < measured.savings.mean <= told + 0.002
    assert 0.03 < measured.slowdown.mean <= 0.05
    assert world.plan is not None
    assert world.plan.allowed_slowdown == pytest.approx(0.05), "the guards go by it"


def test_while_nothing_changes_nothing_is_computed_again(unmoved: Replicas) -> None:
    world = unmoved.copy()
    computed, before = world.plans_computed, world.status
    world.run(100)
    assert (world.plans_computed, world.status) == (computed, before)


def test_slowdown_that_is_allowed_then_is_planned_for_and_taken_back_leaves_no_plan(unmoved: Replicas) -> None:
    world: Any = unmoved.copy()
    for percent, phase in ((5, "Active"), (0, "Idle")):
        world.generation += 1
        world.spec = world.spec.model_copy(update={"max_slowdown_percent": float(percent)})
        world.run(60)
        assert world.status.phase == phase
        assert (world.plan is None) == (percent == 0)
    assert world.status.savings is None


def test_ranks_that_are_silent_for_a_moment_leave_it_as_it_is(unmoved: Replicas) -> None:
    world = unmoved.copy()
    world.ranks = 1
    world.settle()
    assert world.status.phase == "Idle"
    world.ranks = 2
    world.settle()
    assert world.condition("Degraded").status == "False"
    assert (world.status.phase, world.status.message) == ("Idle", unmoved.status.message)


def test_a_job_that_ends_idle_is_completed(unmoved: Replicas) -> None:
    world: Any = unmoved.copy()
    world.job = None
    world.settle()
    assert world.status.phase == "Completed"


def test_a_training_of_which_only_iterations_are_seen_is_refused_until_more_is() -> None:
    world: Any = Replicas(EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, "maxSlowdownPercent": 5}))
    world.schedule = "IterationsOnly"
    world.settle()
    assert (world.status.phase, world.condition("Profiled").reason) == ("Refused", "WorkUnseen")
    world.schedule = "NoPipeline"
    world.settle()
    assert world.status.phase == "Profiling"
