"""What each kind of job tells by its object; and which job is the topmost."""

from __future__ import annotations

from typing import Any

import pytest

from joulepath_crds import JOB_NAMES, JobName, JobReference
from joulepath_operator.control.index import Index
from joulepath_operator.jobs.interface import JobKind
from joulepath_operator.jobs.job import JOBS
from joulepath_operator.jobs.jobset import JOB_SETS
from joulepath_operator.jobs.kinds import JOB_KINDS, is_supported
from joulepath_operator.jobs.trainjob import TRAIN_JOBS

SUCCEEDED = {"PyTorchJob": "Succeeded", "TrainJob": "Complete", "JobSet": "Completed", "Job": "Complete"}
every_kind = pytest.mark.parametrize("kind", JOB_KINDS, ids=lambda kind: kind.resource.kind)


def body(name: str = "gpt3", uid: str = "u", made_by: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": name, "uid": uid, "annotations": {"joulepath.dev/energy-plan": "plan"}}
    return {"metadata": {**metadata, "ownerReferences": [made_by] if made_by else []}, **fields}


def owner(kind: str, name: str, uid: str) -> dict[str, Any]:
    (named,) = (one for one in JOB_NAMES if one.kind == kind)
    return {"controller": True, "apiVersion": named.api_version, "kind": kind, "name": name, "uid": uid}


def conditions(*true: str) -> dict[str, Any]:
    others = [{"type": "Suspended", "status": "False"}, {"type": "Failed", "status": "False"}]
    return {"conditions": [*others, *({"type": one, "status": "True"} for one in true)]}


def test_operator_and_nodes_know_the_same_kinds() -> None:
    assert [kind.resource.kind for kind in JOB_KINDS] == [one.kind for one in JOB_NAMES]
    assert all(is_supported(JobReference(api_version=one.api_version, kind=one.kind, name="j")) for one in JOB_NAMES)
    assert not is_supported(JobReference(api_version="kubeflow.org/v1", kind="Job", name="j"))


@every_kind
def test_a_job_has_finished_by_its_own_kinds_condition(kind: JobKind) -> None:
    succeeded = SUCCEEDED[kind.resource.kind]
    assert kind.read(body()).finished is None
    assert kind.read(body(status=conditions("Suspended", "SuccessCriteriaMet"))).finished is None
    assert kind.read(body(status=conditions(succeeded))).finished == "Succeeded"
    assert kind.read(body(status=conditions("Failed"))).finished == "Failed"
    assert kind.read(body()).annotation == "plan"
    assert kind.read(body()).straggler is None


@every_kind
def test_what_is_announced_of_a_straggler_is_read_as_it_is_written(kind: JobKind) -> None:
    job = body()
    job["metadata"]["annotations"]["joulepath.dev/straggler"] = "whatever it is"
    assert kind.read(job).straggler == "whatever it is"


@every_kind
def test_a_job_is_suspended_as_soon_as_that_is_asked_for(kind: JobKind) -> None:
    def spec(asked: bool) -> dict[str, Any]:
        return {"runPolicy": {"suspend": asked}} if kind.resource.kind == "PyTorchJob" else {"suspend": asked}

    assert kind.read(body(spec=spec(True))).suspended
    assert not kind.read(body(spec=spec(False), status=conditions("Suspended"))).suspended
    assert not kind.read(body()).suspended


@every_kind
def test_a_restart_names_the_job_and_its_namespace(kind: JobKind) -> None:
    command = kind.restart_command("team", "gpt3")
    assert f"kubectl -n team {'patch' if kind.resource == JOBS else 'get'} {kind.resource.singular} gpt3 " in command


def test_the_topmost_job_is_found_by_uid_through_what_it_has_made() -> None:
    index = Index()
    job = JobName(JOB_NAMES[-1], "gpt3-node-0", "j")
    assert index.topmost("team", job) is None, "it isn't known yet"
    index.put(JOBS, body("gpt3-node-0", "j", owner("JobSet", "gpt3", "s")))
    assert index.topmost("team", job) is None, "who has made it isn't known yet"
    index.put(JOB_SETS, body("gpt3", "s", owner("TrainJob", "gpt3", "t")))
    index.put(TRAIN_JOBS, body("gpt3", "t"))
    found = index.topmost("team", job)
    assert found is not None
    assert found.uid == "t"
    assert index.topmost("team", JobName(job.kind, job.name, "before")) is None, "another of its name"
    assert index.topmost("elsewhere", job) is None
    index.put(TRAIN_JOBS, body("gpt3", "after"))
    assert index.topmost("team", job) is None, "the one that has made it is gone"


def test_who_is_controlled_by_somebody_else_is_topmost() -> None:
    index = Index()
    by_cron = {"controller": True, "apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "c"}
    index.put(JOBS, body("nightly-1", "j", by_cron))
    found = index.topmost("team", JobName(JOB_NAMES[-1], "nightly-1", "j"))
    assert found is not None
    assert found.made_by is None
