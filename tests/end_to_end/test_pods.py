"""What happens to pods: they stay as they were written, and where it is asked for their containers get the trainer.

Their namespace enforces Pod Security's level restricted.
"""

from __future__ import annotations

import pytest

from joulepath_crds import ANNOTATION
from real_cluster import CommandError, until
from tests.end_to_end import jobs
from tests.end_to_end.product import JOBS, UNEVEN, Product
from tests.end_to_end.watching import Recorder

# The jobs of the next modules start meanwhile.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven", "even")]


def test_a_bad_energyplan_is_refused_with_a_sentence(release: Product) -> None:
    with pytest.raises(CommandError) as said:
        jobs.apply(release.cluster, jobs.energy_plan("bad", maxSlowdownPercent=80))
    assert "must be between 0 (no slowdown) and 50: set how many percent longer" in str(said.value)


def test_pods_of_a_job_without_annotation_are_byte_for_byte_what_they_were_before(release: Product) -> None:
    assert jobs.pods_as_made(release.cluster) == release.untouched


def test_pods_of_an_annotated_job_are_what_they_were_written_to_be(release: Product, uneven: str) -> None:
    job = jobs.training_job(uneven, first_kernel=UNEVEN, workers=1)
    (wanted,) = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
    written = {one["name"] for one in wanted["env"]}
    for pod in jobs.pods(release.cluster, uneven, count=2):
        (made,) = pod["spec"]["containers"]
        mounted = [one["name"] for one in made["volumeMounts"] if not one["name"].startswith("kube-api-access")]
        assert mounted == [one["name"] for one in wanted["volumeMounts"]]
        assert not {one["name"] for one in made["env"]} & {"PYTHONPATH", "JOULEPATH_SOCKET"} - written
        assert not any("joulepath" in name for name in pod["metadata"].get("annotations") or {})


def test_a_job_without_annotation_is_told_which_one_to_add(release: Product, record: Recorder) -> None:
    cluster = release.cluster
    jobs.apply(cluster, jobs.waiting_job("late", annotated=False), jobs.energy_plan("late"))
    record.wait("late", "the remedy", 30, lambda status: f"({ANNOTATION}: late)" in status.message)
    jobs.phase(cluster, "late", "Running")


def test_a_job_annotated_while_it_runs_is_told_the_command_that_injects_it(release: Product, record: Recorder) -> None:
    cluster = release.cluster
    cluster.kubectl("annotate", "pytorchjob", "late", f"{ANNOTATION}=late", "--namespace", JOBS)
    status = record.wait(
        "late",
        "the reason",
        30,
        lambda status: any(one.reason == "PodsPredateAnnotation" for one in status.conditions),
    )
    assert f"kubectl -n {JOBS} get pytorchjob late -o yaml | kubectl -n {JOBS} replace --force -f -" in status.message
    jobs.stop(cluster, "late")
    jobs.phase(cluster, "late", "Succeeded")


def test_an_images_own_pythonpath_is_kept(release: Product) -> None:
    assert jobs.own_pythonpath(release.cluster) == jobs.PYTHONPATH_KEPT


def test_a_job_that_is_suspended_is_said_to_be_so_and_nothing_else_and_injected_once_it_is_resumed(
    release: Product, record: Recorder
) -> None:
    job = jobs.waiting_job("resumed")
    job["spec"]["runPolicy"]["suspend"] = True
    jobs.apply(release.cluster, job, jobs.energy_plan("resumed"))

    def reasons() -> set[str]:
        told = [one.body.get("status") or {} for one in record.versions("energyplans", "resumed")]
        return {one["reason"] for status in told for one in status.get("conditions", ()) if one["type"] == "Injected"}

    record.wait("resumed", "the suspension", 60, lambda status: "is suspended" in (status.message or ""))
    chosen = ("pytorchjob", "resumed", "--namespace", JOBS)
    release.cluster.kubectl("wait", *chosen, "--for=condition=Suspended", "--timeout=60s")
    assert reasons() - {"NoJob"} == {"Suspended"}, "nor before the training operator had said so"
    assert not record.outcomes("resumed")
    release.cluster.kubectl("patch", *chosen, "--type=merge", "--patch", '{"spec": {"runPolicy": {"suspend": false}}}')
    until("the trainer", 120, lambda: record.outcomes("resumed") == {"pytorch": "Injected"})
    record.wait("resumed", "the wait for it", 60, lambda status: "first training step" in (status.message or ""))
    jobs.stop(release.cluster, "resumed")


def test_pods_that_wait_behind_a_gate_are_said_to_and_injected_once_it_is_open(
    release: Product, record: Recorder
) -> None:
    job = jobs.waiting_job("gated")
    jobs.template(job)["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    jobs.apply(release.cluster, jobs.energy_plan("gated"), job)
    record.wait("gated", "the gate", 60, lambda status: "SchedulingGated" in (status.message or ""))
    opened = '[{"op": "remove", "path": "/spec/schedulingGates"}]'
    chosen = ("pod", "gated-master-0", "--namespace", JOBS)
    release.cluster.kubectl("patch", *chosen, "--type=json", "--patch", opened)
    until("the trainer", 120, lambda: record.outcomes("gated") == {"pytorch": "Injected"})
    jobs.stop(release.cluster, "gated")
