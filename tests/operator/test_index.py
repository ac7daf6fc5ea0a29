"""The index: what the watches told, and whom it concerns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations
from typing import Any
from weakref import ref

import pytest

from joulepath_crds import (
    JOB_UID_LABEL,
    Arm,
    BlockReport,
    JobPlanSpec,
    NodeMeasurementStatus,
    NodeReportStatus,
    Purpose,
    Sweep,
    content_hash,
    facts_of,
    measured_of,
    state_of,
)
from joulepath_crds.nodereport import RankNow
from joulepath_operator.control.index import Index
from joulepath_operator.facts.names import (
    ENERGY_PLANS,
    JOB_PLANS,
    NODE_MEASUREMENTS,
    NODE_REPORTS,
    NODE_STATES,
    Resource,
)
from joulepath_operator.jobs.pytorchjob import PYTORCH_JOBS

PLAN = ("team", "plan")


def energy_plan(name: str = "plan", job: str = "gpt3", version: int = 1) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": f"uid-of-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"job": {"name": job}}}


def job(version: int = 1, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "team", "name": "gpt3", "uid": "u1", "resourceVersion": str(version), **metadata}}


def job_plan(version: int, activate_at: int | None = None, uid: str = "u7") -> dict[str, Any]:
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
    labels = {JOB_UID_LABEL: "u1"}
    metadata = {"namespace": "team", "name": "plan-u1", "uid": uid, "resourceVersion": str(version), "labels": labels}
    return {"metadata": metadata, "spec": spec.to_api() | {"hash": content_hash(spec)}}


def test_a_job_and_a_report_concern_the_plans_that_name_the_job(new_world: Callable[..., Any]) -> None:
    index = Index()
    assert index.put(ENERGY_PLANS, energy_plan()) == {PLAN}
    assert index.put(ENERGY_PLANS, energy_plan("other", "bert")) == {("team", "other")}
    assert index.put(PYTORCH_JOBS, job()) == {PLAN}
    world = new_world()
    reports = [node.report for node in world.nodes()]
    body = {
        "metadata": {"name": "node-0"},
        "status": NodeReportStatus(jobs=(reports[0],)).to_api(),
    }
    assert index.put(NODE_REPORTS, body) == {PLAN}
    assert index.put(NODE_REPORTS, body) == set(), "nothing has changed"
    assert [node.node for node in index.nodes(reports[0].namespace, reports[0].job_uid)] == ["node-0"]
    gone = {"metadata": {"name": "node-0"}, "status": {}}
    assert index.put(NODE_REPORTS, gone) == {PLAN}, "the job has left the node"
    assert index.nodes(reports[0].namespace, reports[0].job_uid) == ()


def test_what_is_older_than_what_is_known_is_left() -> None:
    index = Index()
    index.put(JOB_PLANS, job_plan(7, activate_at=40))
    assert index.put(JOB_PLANS, job_plan(6)) == set()
    assert index.plans(PLAN)[0].spec.activate_at == 40
    assert index.put(JOB_PLANS, job_plan(8)) == {PLAN}
    assert index.plans(PLAN)[0].version == "8"


def test_a_list_takes_out_what_it_lacks_but_not_what_came_after_it_was_asked_for() -> None:
    index = Index()
    index.put(ENERGY_PLANS, energy_plan())
    known = index.uids(ENERGY_PLANS)
    index.put(ENERGY_PLANS, energy_plan("new"))
    assert index.replace(ENERGY_PLANS, [], known) == {PLAN}
    assert index.keys(ENERGY_PLANS) == {("team", "new")}


def test_what_is_told_late_of_a_deleted_object_does_not_bring_it_back() -> None:
    index = Index()
    index.put(PYTORCH_JOBS, job(5))
    index.drop(PYTORCH_JOBS, job(9))
    assert index.put(PYTORCH_JOBS, job(7)) == set()
    assert index.job(PYTORCH_JOBS, ("team", "gpt3")) is None


def test_what_is_deleted_by_name_stays_away_however_new_its_last_state() -> None:
    """The operator deletes a JobPlan before the watch has told it of the newest version."""
    index = Index()
    index.put(JOB_PLANS, job_plan(5))
    index.drop(JOB_PLANS, {"metadata": {"namespace": "team", "name": "plan-u1"}})
    assert index.put(JOB_PLANS, job_plan(7)) == set()
    assert index.plans(PLAN) == ()
    assert index.put(JOB_PLANS, job_plan(8, uid="another")) == {PLAN}


def test_the_end_of_an_object_is_not_that_of_another_of_its_name() -> None:
    index = Index()
    index.put(PYTORCH_JOBS, job(5))
    index.put(PYTORCH_JOBS, job(8, uid="u2"))
    assert index.drop(PYTORCH_JOBS, job(7)) == set()
    found = index.job(PYTORCH_JOBS, ("team", "gpt3"))
    assert found is not None
    assert found.uid == "u2"


def test_a_list_from_before_an_object_was_made_anew_does_not_take_out_the_new_one() -> None:
    index = Index()
    index.put(PYTORCH_JOBS, job(5))
    known = index.uids(PYTORCH_JOBS)
    index.drop(PYTORCH_JOBS, job(6))
    index.put(PYTORCH_JOBS, job(8, uid="u2"))
    index.replace(PYTORCH_JOBS, [], known)
    assert index.job(PYTORCH_JOBS, ("team", "gpt3")) is not None


def test_deleted_objects_are_forgotten_in_the_end() -> None:
    now = 100.0
    index = Index(lambda: now)
    index.put(PYTORCH_JOBS, job(5))
    index.drop(PYTORCH_JOBS, job(6))
    now += 1000
    index.replace(PYTORCH_JOBS, [], index.uids(PYTORCH_JOBS))
    assert not index._known[PYTORCH_JOBS]


def test_what_can_be_read_again_is_back() -> None:
    index = Index()
    broken = job_plan(2)
    del broken["spec"]["jobUID"]
    index.put(JOB_PLANS, broken)
    assert index.put(JOB_PLANS, job_plan(3)) == {PLAN}


def test_what_cannot_be_read_is_left_out() -> None:
    index = Index()
    index.put(JOB_PLANS, job_plan(1))
    broken = job_plan(2)
    del broken["spec"]["jobUID"]
    assert index.put(JOB_PLANS, broken) == {PLAN}
    assert index.plans(PLAN) == ()


def test_a_job_plan_that_no_agent_reads_by_its_label_is_none() -> None:
    index, unlabelled = Index(), job_plan(1)
    del unlabelled["metadata"]["labels"]
    index.put(JOB_PLANS, unlabelled)
    assert index.plans(PLAN) == ()


def test_the_age_of_a_report_counts_from_its_last_change(new_world: Callable[..., Any]) -> None:
    now = 100.0
    index = Index(lambda: now)
    report = new_world().nodes()[0].report
    body = {"metadata": {"name": "node-0"}, "status": NodeReportStatus(jobs=(report,)).to_api()}
    index.put(NODE_REPORTS, body)
    now = 103.0
    index.put(NODE_REPORTS, body)
    assert index.nodes(report.namespace, report.job_uid)[0].age_s == 3.0


def parts(report: NodeReportStatus, name: str = "node-0") -> dict[Resource, dict[str, Any]]:
    """A node's report as its agent writes it, by resource."""
    told = {
        NODE_REPORTS: facts_of(report),
        NODE_STATES: state_of(report),
        NODE_MEASUREMENTS: NodeMeasurementStatus(packed=measured_of(report).packed()),
    }
    return {resource: {"metadata": {"name": name}, "status": part.to_api()} for resource, part in told.items()}


@pytest.mark.parametrize("order", list(permutations((NODE_REPORTS, NODE_STATES, NODE_MEASUREMENTS))))
def test_what_a_node_tells_in_three_objects_is_one_report_in_whatever_order_they_come(
    new_world: Callable[..., Any], order: tuple[Resource, ...]
) -> None:
    whole, apart, node = Index(), Index(), new_world().nodes()[0]
    report = NodeReportStatus(gpus=node.gpus, jobs=(node.report,))
    whole.put(NODE_REPORTS, {"metadata": {"name": "node-0"}, "status": report.to_api()})
    apart.put(ENERGY_PLANS, energy_plan(job=node.report.job))
    told = parts(report)
    concerned = [apart.put(resource, told[resource]) for resource in order]
    assert concerned[order.index(NODE_STATES) :] == [{PLAN}] * (3 - order.index(NODE_STATES))
    (found,), (wanted,) = (one.nodes(node.report.namespace, node.report.job_uid) for one in (apart, whole))
    assert found.gpus == wanted.gpus
    for rank, like in zip(found.report.ranks, wanted.report.ranks, strict=True):
        assert rank.order == like.order
        assert [one.instruction for one in rank.timeline] == [one.instruction for one in like.timeline]
        assert [one.time_s for one in rank.instructions] == pytest.approx([one.time_s for one in like.instructions])
        assert {name: getattr(rank, name) for name in RankNow.model_fields} == {
            name: getattr(like, name) for name in RankNow.model_fields
        }


def test_an_iteration_is_a_sign_of_life_and_concerns_nobody(new_world: Callable[..., Any]) -> None:
    """A job of a thousand nodes would be looked at all the time, and a look at it takes long."""
    now, node = 100.0, new_world().nodes()[0]
    index = Index(lambda: now)
    index.put(ENERGY_PLANS, energy_plan(job=node.report.job))

    def told(**rank: Any) -> dict[str, Any]:
        ranks = tuple(one.model_copy(update=rank) for one in node.report.ranks)
        return parts(NodeReportStatus(jobs=(node.report.model_copy(update={"ranks": ranks}),)))[NODE_STATES]

    assert index.put(NODE_STATES, told(iteration=7)) == {PLAN}
    now = 130.0
    assert index.put(NODE_STATES, told(iteration=17)) == set()
    (found,) = index.nodes(node.report.namespace, node.report.job_uid)
    assert (found.age_s, found.report.ranks[0].iteration) == (0.0, 17)
    assert index.put(NODE_STATES, told(iteration=17, staged_hash="one")) == {PLAN}


def test_what_was_measured_in_another_attempt_or_pod_is_not_a_ranks(new_world: Callable[..., Any]) -> None:
    node = new_world().nodes()[0]
    told = parts(NodeReportStatus(gpus=node.gpus, jobs=(node.report,)))
    ranks = tuple(rank.model_copy(update={"pod_uid": "another"}) for rank in node.report.ranks)
    for change in ({"attempt": node.report.attempt + 1}, {"ranks": ranks}):
        index, now = Index(), node.report.model_copy(update=change)
        index.put(NODE_STATES, parts(NodeReportStatus(jobs=(now,)))[NODE_STATES])
        index.put(NODE_MEASUREMENTS, told[NODE_MEASUREMENTS])
        (found,) = index.nodes(node.report.namespace, node.report.job_uid)
        assert not any(rank.order or rank.timeline or rank.instructions for rank in found.report.ranks)


def test_an_older_agent_that_has_come_back_is_believed(new_world: Callable[..., Any]) -> None:
    index, node = Index(), new_world().nodes()[0]
    for resource, body in parts(NodeReportStatus(gpus=node.gpus, jobs=(node.report,))).items():
        index.put(resource, body)
    ranks = tuple(rank.model_copy(update={"iteration": 99}) for rank in node.report.ranks)
    report = NodeReportStatus(gpus=node.gpus, jobs=(node.report.model_copy(update={"ranks": ranks}),))
    index.put(NODE_REPORTS, {"metadata": {"name": "node-0"}, "status": report.to_api()})
    (found,) = index.nodes(node.report.namespace, node.report.job_uid)
    assert {rank.iteration for rank in found.report.ranks} == {99}
    assert found.report.ranks == ranks


def test_blocks_that_are_the_same_stay_the_same_object(new_world: Callable[..., Any]) -> None:
    """By that it is known that nothing of them has to be joined anew."""
    index, node = Index(), new_world().nodes()[0]
    blocks = (BlockReport(hash="h", block=0, arm=Arm.PLAN, iterations=1, iteration_time_s=1, energy_per_iteration_j=1),)

    def tell(**rank: Any) -> list[int]:
        ranks = tuple(one.model_copy(update={"blocks": blocks, **rank}) for one in node.report.ranks)
        report = node.report.model_copy(update={"ranks": ranks})
        for resource, body in parts(NodeReportStatus(jobs=(report,))).items():
            index.put(resource, body)
        (found,) = index.nodes(node.report.namespace, node.report.job_uid)
        assert all(one.blocks == blocks for one in found.report.ranks)
        return [id(one.blocks) for one in found.report.ranks]

    first = tell()
    assert tell(iteration=99) == tell(iteration=100, timeline=()) == first


@pytest.mark.parametrize("packed", ["", "of another form", "json+zlib:AAAA"])
def test_measurements_that_cannot_be_read_leave_what_ranks_do(new_world: Callable[..., Any], packed: str) -> None:
    index, node = Index(), new_world().nodes()[0]
    for resource, body in parts(NodeReportStatus(gpus=node.gpus, jobs=(node.report,))).items():
        index.put(resource, body)
    index.put(NODE_MEASUREMENTS, {"metadata": {"name": "node-0"}, "status": {"packed": packed}})
    (found,) = index.nodes(node.report.namespace, node.report.job_uid)
    assert [rank.order for rank in found.report.ranks] == [()] * len(node.report.ranks)


@pytest.mark.parametrize("label", ["", "f0", "F", "X1", "7:F0", "F0:0"])
def test_a_report_with_a_label_that_is_none_is_left_out(new_world: Callable[..., Any], label: str) -> None:
    index, (node, *_) = Index(), new_world().nodes()
    rank = node.report.ranks[0]
    for odd in (
        rank.model_copy(update={"order": (label,)}),
        rank.model_copy(update={"timeline": (rank.timeline[0].model_copy(update={"instruction": label}),)}),
    ):
        report = node.report.model_copy(update={"ranks": (odd,)})
        body = {"metadata": {"name": "node-0"}, "status": NodeReportStatus(jobs=(report,)).to_api()}
        index.put(NODE_REPORTS, body)
        assert index.nodes(report.namespace, report.job_uid) == ()
        apart = Index()
        for resource, part in parts(NodeReportStatus(jobs=(report,))).items():
            apart.put(resource, part)
        ((found,),) = (one.report.ranks for one in apart.nodes(report.namespace, report.job_uid))
        assert not found.order


def test_a_job_had_its_annotation_when_the_first_who_wrote_it_last_wrote_anything() -> None:
    index = Index()
    ours: dict[str, Any] = {"f:metadata": {"f:annotations": {".": {}, "f:joulepath.dev/energy-plan": {}}}}
    others: dict[str, Any] = {"f:metadata": {"f:annotations": {"f:somebody.example/energy-plan": {}}}, "f:spec": {}}
    fields = [
        {"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": others},
        {"manager": "somebody", "time": "2026-01-01T00:02:00Z", "fieldsV1": ours},
        {"manager": "me", "time": "2026-01-01T00:01:00Z", "fieldsV1": ours},
        {"manager": "nobody", "fieldsV1": ours},
    ]
    index.put(PYTORCH_JOBS, job(managedFields=fields))
    found = index.job(PYTORCH_JOBS, ("team", "gpt3"))
    assert found is not None
    assert found.annotated_at == "2026-01-01T00:01:00Z"


def test_a_job_is_read_as_the_training_operator_writes_it() -> None:
    index = Index()
    body = job(annotations={"joulepath.dev/energy-plan": "plan"}, labels={"kueue.x-k8s.io/queue-name": "team"})
    conditions = [{"type": "Running", "status": "False"}, {"type": "Succeeded", "status": "True"}]
    index.put(PYTORCH_JOBS, {**body, "status": {"conditions": conditions}})
    found = index.job(PYTORCH_JOBS, ("team", "gpt3"))
    assert found is not None
    assert (found.annotation, found.finished, found.suspended) == ("plan", "Succeeded", False)
    assert found.queue == "team"


@pytest.mark.parametrize("condition", ["True", "False", None])
@pytest.mark.parametrize(
    ("spec", "suspended"),
    [
        ({"runPolicy": {"suspend": True}}, True),
        ({"runPolicy": {"suspend": False}}, False),
        ({"runPolicy": {}}, False),
        ({}, False),
    ],
)
def test_a_job_is_suspended_while_that_is_asked_for_whatever_its_condition_says_yet(
    spec: dict[str, Any], suspended: bool, condition: str | None
) -> None:
    index = Index()
    conditions = [{"type": "Suspended", "status": condition}] if condition else []
    index.put(PYTORCH_JOBS, {**job(), "spec": spec, "status": {"conditions": conditions}})
    found = index.job(PYTORCH_JOBS, ("team", "gpt3"))
    assert found is not None
    assert found.suspended is suspended


def test_of_a_list_no_object_is_kept_longer_than_it_takes_to_read_it() -> None:
    """Anybody may make more and larger Jobs than fit into the operator's memory at once."""
    index, bodies = Index(), list[Any]()

    class Body(dict[str, Any]):
        """One that tells when it goes, unlike a plain dict."""

    def listed() -> Iterator[Body]:
        for number in range(5):
            body = Body(energy_plan(f"plan-{number}"))
            bodies.append(ref(body))
            yield body
            del body
            assert sum(one() is not None for one in bodies) <= 1, "the one that the reader has in its hand"

    assert len(index.replace(ENERGY_PLANS, listed(), {})) == 5
