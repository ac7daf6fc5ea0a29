"""The whole product with `injection: volumes`, where the API server asks the webhook: the trainer comes, or no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from joulepath_crds import EnergyPlanStatus
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from real_cluster import Cluster, CommandError, only_release, until
from tests.end_to_end import jobs, product, watching
from tests.end_to_end.product import JOBS, UNEVEN, Product, wait_ready
from tests.end_to_end.waiting import in_force
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RESTRICTED: Final = f"{JOBS}-restricted"
UNLABELLED: Final = f"{JOBS}-unlabelled"
POLICED: Final = f"{JOBS}-policed"
POLICY: Final = f"no-host-path.{POLICED}"
POLICY_KINDS: Final = "validatingadmissionpolicy,validatingadmissionpolicybinding"
STOPS: Final = ("configmap", "joulepath-injection")


def clear(cluster: Cluster) -> None:
    """All of this module."""
    product.clear(cluster)
    cluster.kubectl("delete", POLICY_KINDS, POLICY, "--ignore-not-found")
    namespaces = (RESTRICTED, UNLABELLED, POLICED)
    cluster.kubectl("delete", "namespace", *namespaces, "--ignore-not-found", "--wait", "--timeout=60s")


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Product]:
    with only_release():
        product.refuse_another_release(cluster)
        clear(cluster)
        product.prepare(cluster)
        for name in (JOBS, RESTRICTED, POLICED):
            cluster.kubectl("create", "namespace", name)
            product.ask_for_the_webhook(cluster, name)
        cluster.kubectl("label", "namespace", RESTRICTED, "pod-security.kubernetes.io/enforce=restricted")
        cluster.kubectl("create", "namespace", UNLABELLED)
        jobs.apply(cluster, *jobs.python_volumes())
        try:
            product.install(cluster, injection="volumes")
            yield Product(cluster, {})
        finally:
            for part in ("operator", "webhook"):
                chosen = ("--selector", f"app.kubernetes.io/component={part}", "--namespace", product.SYSTEM)
                print(cluster.kubectl("logs", *chosen, "--tail=100", "--prefix", "--all-containers"))
            clear(cluster)


@pytest.fixture(scope="module")
def record(release: Product) -> Iterator[Recorder]:
    with watching.recorder(release.cluster.kubeconfig) as made:
        yield made


def injected(pod: dict[str, object]) -> bool:
    """Whether the webhook has given the trainer to a pod."""
    return INJECTED_ANNOTATION in json.dumps(pod)


def test_an_annotated_job_is_injected_and_its_plan_comes_into_force(release: Product, record: Recorder) -> None:
    jobs.apply(release.cluster, jobs.script(), jobs.energy_plan("uneven"))
    jobs.apply(release.cluster, jobs.training_job("uneven", first_kernel=UNEVEN))
    assert all(injected(pod) for pod in jobs.pods(release.cluster, "uneven", count=2))
    in_force(release, record)


def test_an_images_own_pythonpath_is_kept(release: Product) -> None:
    assert jobs.own_pythonpath(release.cluster) == jobs.PYTHONPATH_KEPT


def test_it_is_kept_where_a_script_hands_on_nothing_but_pythonpath(release: Product) -> None:
    cleared = 'env -i PYTHONPATH="$PYTHONPATH" "$(command -v python3)"'
    told = jobs.own_pythonpath(release.cluster, "cleared", cleared)
    assert told == {**jobs.PYTHONPATH_KEPT, "trainer": False}, "it has lost the way to the agent's socket"


def test_a_restricted_namespace_trains_unharmed_and_is_told_why_it_saves_nothing(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster
    jobs.apply(cluster, jobs.waiting_job("strict"), jobs.energy_plan("strict"), namespace=RESTRICTED)
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
    jobs.apply(cluster, jobs.waiting_job("unasked"), jobs.energy_plan("unasked"), namespace=UNLABELLED)
    command = f"kubectl label namespace {UNLABELLED} joulepath.dev/injection=volumes"
    record.wait("unasked", "the remedy", 30, lambda status: command in status.message)
    jobs.phase(cluster, "unasked", "Running", namespace=UNLABELLED)
    assert not injected(jobs.pods(cluster, "unasked", namespace=UNLABELLED)[0])


def policy() -> tuple[dict[str, Any], dict[str, Any]]:
    """Against hostPath, in one namespace: a ValidatingAdmissionPolicy, which sees pods as webhooks have made them."""
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": POLICED}}, "resourceRules": [rule]}
    none = "!has(object.spec.volumes) || object.spec.volumes.all(one, !has(one.hostPath))"
    about = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": POLICY}}
    validations = [{"expression": none, "message": "hostPath volumes are not for trainings"}]
    return (
        {**about, "kind": "ValidatingAdmissionPolicy", "spec": {"matchConstraints": where, "validations": validations}},
        {
            **about,
            "kind": "ValidatingAdmissionPolicyBinding",
            "spec": {"policyName": POLICY, "validationActions": ["Deny"]},
        },
    )


def refused(cluster: Cluster) -> bool:
    """Whether a pod with a hostPath volume is."""
    volume = {"name": "v", "hostPath": {"path": "/run"}}
    spec = {"containers": [{"name": "c", "image": "none"}], "volumes": [volume]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": spec}
    create = ("create", "--dry-run=server", "--namespace", POLICED, "--filename", "-")
    try:
        cluster.kubectl(*create, stdin=json.dumps(pod))
    except CommandError as error:
        return POLICY in str(error)
    return False


def test_pods_that_a_policy_refuses_with_what_is_added_are_made_without_and_with_it_once_it_lets_them(
    release: Product, record: Recorder
) -> None:
    cluster = release.cluster
    jobs.apply(cluster, *policy(), namespace="default")
    until("the policy", 60, lambda: refused(cluster))
    jobs.apply(cluster, jobs.waiting_job("policed"), jobs.energy_plan("policed"), namespace=POLICED)

    def reason(status: EnergyPlanStatus) -> str:
        return next((one.reason for one in status.conditions if one.type == "Injected"), "")

    told = record.wait("policed", "the refusal", 60, lambda status: POLICY in status.message)
    assert reason(told) == "NoPods"
    assert "hostPath volumes are not for trainings" in told.message
    jobs.phase(cluster, "policed", "Running", namespace=POLICED)
    assert not injected(jobs.pods(cluster, "policed", namespace=POLICED)[0])
    told = record.wait("policed", "the stop", 60, lambda status: reason(status) == "InjectionDenied")
    assert POLICY in told.message
    cluster.kubectl("delete", POLICY_KINDS, POLICY)
    until("its end", 60, lambda: not refused(cluster))
    release.kubectl("patch", *STOPS, "--type=merge", "--patch", json.dumps({"data": {POLICED: None}}))

    def goes_on() -> bool:
        cluster.kubectl("delete", "pytorchjob", "policed", "--namespace", POLICED, "--ignore-not-found", "--wait")
        jobs.apply(cluster, jobs.waiting_job("policed"), namespace=POLICED)
        return injected(jobs.pods(cluster, "policed", namespace=POLICED)[0])

    until("a pod with the trainer", 60, goes_on, 1)
    jobs.phase(cluster, "policed", "Running", namespace=POLICED)
    jobs.stop(cluster, "policed")


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
