"""What happens to pods at their creation: injected where it is asked for and can be, untouched everywhere else."""

from __future__ import annotations

import json

import pytest

from joulepath_crds import ANNOTATION
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from real_cluster import CommandError
from tests.end_to_end import jobs
from tests.end_to_end.product import JOBS, PYTHONPATH_IMAGE, Product, ask_for_the_webhook, wait_ready
from tests.end_to_end.watching import Recorder

# The jobs of the next modules start meanwhile.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven", "even")]

RESTRICTED = f"{JOBS}-restricted"
UNLABELLED = f"{JOBS}-unlabelled"
_SAY = """
import json, subprocess, sys, users_module
child = subprocess.run([sys.executable, "-c", "import users_module; print(users_module.__file__)"], capture_output=True)
print(json.dumps({
    "greeting": users_module.GREETING, "child": child.stdout.decode().strip(),
    "trainer": "joulepath_trainer.hook" in sys.modules,
}))
"""
_ALLOWED = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def injected(pod: dict[str, object]) -> bool:
    """Whether the webhook has given the trainer to a pod."""
    return INJECTED_ANNOTATION in json.dumps(pod)


def test_a_bad_energyplan_is_refused_with_a_sentence(release: Product) -> None:
    with pytest.raises(CommandError) as said:
        jobs.apply(release.cluster, jobs.energy_plan("bad", maxSlowdownPercent=80))
    assert "must be between 0 (no slowdown) and 50: set how many percent longer" in str(said.value)


def test_pods_of_a_job_without_annotation_are_byte_for_byte_what_they_were_before(release: Product) -> None:
    assert jobs.pods_as_made(release.cluster) == release.untouched


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
    cluster = release.cluster
    jobs.apply(cluster, jobs.waiting_job("pythonpath", ("python3", "-c", _SAY), image=PYTHONPATH_IMAGE))
    jobs.phase(cluster, "pythonpath", "Succeeded")
    (pod,) = jobs.pods(cluster, "pythonpath")
    said = json.loads(cluster.kubectl("logs", "--namespace", JOBS, pod["metadata"]["name"]))
    assert injected(pod)
    assert said == {
        "greeting": "hello from the image's own PYTHONPATH",
        "child": "/opt/user/users_module.py",
        "trainer": True,
    }


def test_a_restricted_namespace_trains_unharmed_and_is_told_why_it_saves_nothing(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster
    cluster.kubectl("create", "namespace", RESTRICTED)
    ask_for_the_webhook(cluster, RESTRICTED)
    cluster.kubectl("label", "namespace", RESTRICTED, "pod-security.kubernetes.io/enforce=restricted")
    job, plan = jobs.waiting_job("strict", security=_ALLOWED), jobs.energy_plan("strict")
    jobs.apply(cluster, job, plan, namespace=RESTRICTED)
    status = record.wait("strict", "the reason", 30, lambda status: "Pod Security" in status.message)
    assert f"Namespace {RESTRICTED} enforces Pod Security level restricted" in status.message
    jobs.phase(cluster, "strict", "Running", namespace=RESTRICTED)
    jobs.stop(cluster, "strict")
    jobs.phase(cluster, "strict", "Succeeded", namespace=RESTRICTED)
    assert not injected(jobs.pods(cluster, "strict", namespace=RESTRICTED)[0])


def test_a_namespace_without_the_label_trains_unharmed_and_is_told_the_command(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster
    cluster.kubectl("create", "namespace", UNLABELLED)
    try:
        jobs.apply(cluster, jobs.waiting_job("unasked"), jobs.energy_plan("unasked"), namespace=UNLABELLED)
        command = f"kubectl label namespace {UNLABELLED} joulepath.dev/injection=volumes"
        record.wait("unasked", "the remedy", 30, lambda status: command in status.message)
        jobs.phase(cluster, "unasked", "Running", namespace=UNLABELLED)
        assert not injected(jobs.pods(cluster, "unasked", namespace=UNLABELLED)[0])
    finally:
        cluster.kubectl("delete", "namespace", UNLABELLED, "--wait=false")


def test_without_the_webhook_pods_are_created_all_the_same(release: Product) -> None:
    cluster, webhook = release.cluster, "deployment/joulepath-webhook"
    release.kubectl("scale", webhook, "--replicas=0")
    release.kubectl("wait", "--for=delete", "pod", "--selector=app.kubernetes.io/component=webhook", "--timeout=60s")
    try:
        jobs.apply(cluster, jobs.waiting_job("unseen", ("true",)))
        jobs.phase(cluster, "unseen", "Succeeded")
        assert not injected(jobs.pods(cluster, "unseen")[0])
    finally:
        release.kubectl("scale", webhook, "--replicas=2")
        wait_ready(release, webhook)
