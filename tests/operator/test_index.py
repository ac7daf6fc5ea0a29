"""The index: what the watches told, and whom it concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from joulepath_crds import JobPlanSpec, NodeReportStatus, Purpose, Sweep
from joulepath_operator.index import Index, Kind

PLAN = ("team", "plan")


def energy_plan(name: str = "plan", job: str = "gpt3", version: int = 1) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"job": {"name": job}}}


def job(version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": "gpt3", "uid": "u1", "resourceVersion": str(version), **metadata}}


def job_plan(version: int, activate_at: int | None = None) -> dict[str, Any]:
    spec = JobPlanSpec(
        energy_plan="plan",
        job="gpt3",
        job_uid="u1",
        purpose=Purpose.SWEEP,
        hash="h",
        activate_at=activate_at,
        sweep=Sweep(clocks_mhz=(0,), iterations_per_block=2),
        default_clock_mhz=1410,
    )
    metadata = {"namespace": "team", "name": "plan-u1", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec.to_api()}


def test_a_job_and_a_report_concern_the_plans_that_name_the_job(new_world: Callable[..., Any]) -> None:
    index = Index()
    assert index.put(Kind.ENERGY_PLAN, energy_plan()) == {PLAN}
    assert index.put(Kind.ENERGY_PLAN, energy_plan("other", "bert")) == {("team", "other")}
    assert index.put(Kind.JOB, job()) == {PLAN}
    world = new_world()
    reports = [node.report for node in world.nodes()]
    body = {
        "metadata": {"name": "node-0"},
        "status": NodeReportStatus(jobs=(reports[0],)).to_api(),
    }
    assert index.put(Kind.NODE_REPORT, body) == {PLAN}
    assert index.put(Kind.NODE_REPORT, body) == set(), "nothing has changed"
    assert [node.node for node in index.nodes(reports[0].namespace, reports[0].job_uid)] == ["node-0"]
    gone = {"metadata": {"name": "node-0"}, "status": {}}
    assert index.put(Kind.NODE_REPORT, gone) == {PLAN}, "the job has left the node"
    assert index.nodes(reports[0].namespace, reports[0].job_uid) == ()


def test_what_is_older_than_what_is_known_is_left() -> None:
    index = Index()
    index.put(Kind.JOB_PLAN, job_plan(7, activate_at=40))
    assert index.put(Kind.JOB_PLAN, job_plan(6)) == set()
    assert index.plans(PLAN)[0].spec.activate_at == 40
    assert index.put(Kind.JOB_PLAN, job_plan(8)) == {PLAN}
    assert index.plans(PLAN)[0].version == "8"


def test_a_list_takes_out_what_it_lacks_but_not_what_came_after_it_was_asked_for() -> None:
    index = Index()
    index.put(Kind.ENERGY_PLAN, energy_plan())
    known = index.keys(Kind.ENERGY_PLAN)
    index.put(Kind.ENERGY_PLAN, energy_plan("new"))
    assert index.replace(Kind.ENERGY_PLAN, [], known) == {PLAN}
    assert index.keys(Kind.ENERGY_PLAN) == {("team", "new")}


def test_what_cannot_be_read_is_left_out() -> None:
    index = Index()
    index.put(Kind.JOB_PLAN, job_plan(1))
    broken = job_plan(2)
    del broken["spec"]["jobUID"]
    assert index.put(Kind.JOB_PLAN, broken) == {PLAN}
    assert index.plans(PLAN) == ()


def test_the_age_of_a_report_counts_from_its_last_change(new_world: Callable[..., Any]) -> None:
    now = 100.0
    index = Index(lambda: now)
    report = new_world().nodes()[0].report
    body = {"metadata": {"name": "node-0"}, "status": NodeReportStatus(jobs=(report,)).to_api()}
    index.put(Kind.NODE_REPORT, body)
    now = 103.0
    index.put(Kind.NODE_REPORT, body)
    assert index.nodes(report.namespace, report.job_uid)[0].age_s == 3.0


def test_a_job_is_read_as_the_training_operator_writes_it() -> None:
    index = Index()
    body = job(annotations={"joulepath.dev/energy-plan": "plan"})
    conditions = [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}]
    index.put(Kind.JOB, {**body, "status": {"conditions": conditions}})
    found = index.job(("team", "gpt3"))
    assert found is not None
    assert (found.annotation, found.finished, found.suspended) == ("plan", "Succeeded", False)
