"""Plans that are too large for an object: packed, and refused where that isn't enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from joulepath_crds import MOST_PLAN_BYTES, EnergyPlanSpec, Phase, Purpose, content_hash
from joulepath_operator.control import index as indexing
from joulepath_operator.control.index import Index
from joulepath_operator.facts.names import JOB_PLANS
from joulepath_operator.story import delivery
from joulepath_operator.story.outcomes import stragglers
from tests.operator.bare_api import job_plan
from tests.operator.replicas import Replicas

NewWorld = Callable[..., Any]


@pytest.fixture
def most(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets how many bytes a JobPlan may have."""

    def limit(size: int) -> None:
        monkeypatch.setattr("joulepath_crds.jobplan.MOST_PLAN_BYTES", size)
        for module in (delivery, stragglers, indexing):
            monkeypatch.setattr(module, "MOST_PLAN_BYTES", size)

    return limit


def spec(**changes: Any) -> EnergyPlanSpec:
    return EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **changes})


def test_a_plan_that_would_be_too_large_is_sent_as_a_string_and_comes_into_force(
    new_world: NewWorld, most: Callable[[int], None]
) -> None:
    most(3000)
    world: Any = new_world(spec(measurement={"pairs": 8}))
    world.settle()
    world.run(200)
    assert world.status.phase is Phase.ACTIVE
    plans = [plan for plan in world.writes if plan.purpose is Purpose.ENFORCE]
    assert [plan.activate_at is None for plan in plans] == [True, False], "not anew at each look"
    assert all("stages" not in plan.to_api() and plan.packed_stages for plan in plans)
    assert all(plan.size <= 3000 and plan.hash == content_hash(plan.to_api()) for plan in plans)
    assert all(plan.packed_stages is None for plan in world.writes if plan.purpose is Purpose.SWEEP)


@pytest.mark.parametrize("mode", ["Enforce", "Observe"])
def test_a_plan_that_is_too_large_as_a_string_as_well_is_refused_with_the_remedy(
    new_world: NewWorld, most: Callable[[int], None], mode: str
) -> None:
    most(300)
    world: Any = new_world(spec(mode=mode))
    world.settle()
    world.run(130)
    assert world.status.phase is Phase.REFUSED
    assert {one.reason for one in world.status.conditions if one.type == "Degraded"} == {"PlanTooLarge"}
    assert "of 128 instructions has " in world.status.message
    assert "nodes take 300. A coarser spec.granularity" in world.status.message
    assert all(plan.purpose is Purpose.SWEEP for plan in world.writes)
    world.run(20)
    assert world.status.phase is Phase.REFUSED, "that is final"


def test_a_packed_plan_is_not_stretched(most: Callable[[int], None]) -> None:
    most(3000)
    world: Any = Replicas()
    world.settle()
    world.run(300)
    assert world.plan.packed_stages
    before = world.plan.hash
    world.announce('{"replica": 1, "slowdown": 1.2}')
    world.settle()
    assert world.plan.hash == before
    assert "too large for an object of the API" in world.status.straggler.message


def test_a_stored_plan_is_read_from_its_string_and_a_larger_one_is_made_anew(
    new_world: NewWorld, most: Callable[[int], None]
) -> None:
    world: Any = new_world()
    world.settle()
    world.run(130)
    (stored,) = world.plans.values()
    plain = stored.spec
    assert plain.purpose is Purpose.ENFORCE
    most(3000)
    fitting = plain.fitting()
    index = Index()
    for plan, is_known in ((fitting, True), (plain, False)):
        hashed = plan.model_copy(update={"hash": content_hash(plan)})
        index.put(JOB_PLANS, job_plan(type(stored)(stored.name, hashed, stored.inputs)))
        found = index.plans(("team", "plan"))
        assert [one.spec for one in found] == ([hashed] if is_known else [])
    assert fitting.stages == plain.stages
    assert MOST_PLAN_BYTES == 256 * 1024
