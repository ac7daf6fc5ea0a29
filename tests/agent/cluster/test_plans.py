"""JobPlans as events bring them."""

from __future__ import annotations

from typing import Any

import pytest

from joulepath_agent.cluster.plans import Plans
from joulepath_clocks.ranks.reason import Reason
from joulepath_crds import JobPlanSpec, Purpose, Sweep, content_hash


def item(name: str, version: int = 1, activate_at: int | None = None, **metadata: str) -> dict[str, Any]:
    """A JobPlan of a job of its own, as the API gives it."""
    spec = JobPlanSpec(
        energy_plan="plan",
        job="job",
        job_uid=f"job-of-{name}",
        purpose=Purpose.SWEEP,
        hash="one",
        activate_at=activate_at,
        sweep=Sweep(clocks_mhz=(900,), iterations_per_block=2),
        default_clock_mhz=1410,
    )
    fixed = {"name": name, "namespace": "default", "uid": name, "resourceVersion": str(version)}
    return {"metadata": {**fixed, "creationTimestamp": "2026-01-01T00:00:00Z", **metadata}, "spec": hashed(spec)}


def hashed(spec: JobPlanSpec, **changes: Any) -> dict[str, Any]:
    """A spec as the operator writes it."""
    body = {**spec.to_api(), **changes}
    return {**body, "hash": content_hash(body)}


def key(name: str) -> tuple[str, str]:
    return "default", f"job-of-{name}"


def spec_of(plans: Plans, name: str) -> JobPlanSpec:
    told = plans.by_job()[key(name)]
    assert isinstance(told, JobPlanSpec)
    return told


def test_a_plan_is_parsed_again_only_when_it_has_changed() -> None:
    plans = Plans()
    plans.replace([item("a"), item("b")])
    first = plans.by_job()
    plans.put(item("b", 2, activate_at=7))
    second = plans.by_job()
    assert second[key("a")] is first[key("a")]
    assert spec_of(plans, "b").activate_at == 7
    plans.replace([item("a"), item("b", 2, activate_at=7)])
    assert all(plans.by_job()[key(name)] is second[key(name)] for name in "ab")
    plans.replace([item("b", 3, activate_at=9)])
    assert set(plans.by_job()) == {key("b")}
    assert spec_of(plans, "b").activate_at == 9


def test_plans_that_are_gone_going_or_unreadable_are_none() -> None:
    plans = Plans()
    plans.replace([item("a"), item("b"), item("c")])
    plans.remove(item("a"))
    plans.remove(item("a"))
    plans.put(item("b", 2, deletionTimestamp="2026-01-01T00:00:01Z"))
    plans.put({**item("c", 2), "spec": {"purpose": "Sweep"}})
    assert plans.by_job() == {}


def test_the_youngest_plan_of_a_job_is_its_plan() -> None:
    plans = Plans()
    young = item("a", uid="young", activate_at=5, creationTimestamp="2026-01-02T00:00:00Z")
    plans.replace([young, item("a", uid="old")])
    assert spec_of(plans, "a").activate_at == 5


def test_a_plan_whose_content_is_not_that_of_its_hash_is_told_and_the_others_are_played(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plans, changed = Plans(), item("a")
    changed["spec"]["sweep"]["clocksMHz"] = [600]
    plans.replace([changed, item("b")])
    told = plans.by_job()[key("a")]
    assert isinstance(told, Reason)
    assert str(told).startswith("HashMismatch: the plan's hash is ")
    assert "JobPlan default/a isn't played: HashMismatch" in caplog.text
    assert spec_of(plans, "b").job == "job"
    plans.put(item("a", 2))
    assert spec_of(plans, "a").job == "job"


def test_a_newer_operator_may_write_fields_that_this_agent_does_not_know() -> None:
    plans, newer = Plans(), item("a")
    sweep = {**newer["spec"]["sweep"], "unheardOf": [1.0, {"deep": 2.50}]}
    newer["spec"] = hashed(JobPlanSpec.from_api(newer["spec"]), sweep=sweep, alsoUnheardOf=7.0)
    newer["spec"]["unheardOfFrom"] = 12  # written later, as activateAt is
    plans.put(newer)
    assert spec_of(plans, "a").sweep == Sweep(clocks_mhz=(900,), iterations_per_block=2)
