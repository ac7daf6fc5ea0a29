"""Why pods have no trainer, or don't run: told by the API server's objects and the nodes' reports."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client

from joulepath_crds import EnergyPlanStatus, InjectionReport, NodeReportStatus
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import Index
from joulepath_operator.control.pods import as_seen
from joulepath_operator.control.reconcile import Reconciler
from joulepath_operator.facts.absence import Means, Way
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.facts.names import (
    NODE_REPORTS,
)
from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.jobs.job import JOBS
from joulepath_operator.jobs.jobset import JOB_SETS
from joulepath_operator.jobs.trainjob import TRAIN_JOBS
from joulepath_operator.metrics import Metrics
from joulepath_operator.planning.pool import PlannerPool
from tests.operator.bare_api import PLAN, Server, owned_by, training_pod, watched

# pods without the trainer


@pytest.fixture
def world(server: Server, new_world: Callable[..., Any]) -> Any:
    """That of a job of which no rank reports, and in which no agent has a pod."""
    made = new_world()
    made.ranks = 0
    server.objects["v1/pods"] = {"items": []}
    return made


def injected_condition(server: Server, api: Api, index: Index, means: Means) -> tuple[str, str]:
    """Reason and message, once an EnergyPlan was looked at."""
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics(), means=means)(PLAN))
    status = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    (one,) = (one for one in status.conditions if one.type == "Injected")
    return one.reason, one.message


def test_a_pod_that_the_webhook_leaves_alone_is_told_with_the_webhooks_own_reason(
    server: Server, api: Api, world: Any
) -> None:
    index = watched(server, world)
    labels = {"joulepath.dev/injection": "volumes"}
    server.objects["namespaces/team"] = {"metadata": {"name": "team", "labels": labels}}
    pods = [training_pod(0, world.job.uid), training_pod(1, world.job.uid, hostUsers=False), training_pod(2, "other")]
    pods[0]["metadata"]["annotations"] = {INJECTED_ANNOTATION: "c"}
    server.objects["team/pods"] = {"items": pods}
    reason, message = injected_condition(server, api, index, Means())
    assert reason == "PodsUnsuited"
    assert message.startswith(
        "1 of 2 pods of PyTorchJob gpt3 (gpt3-worker-1 on node node-1) can't take the trainer: it"
    )
    assert "(hostUsers: false)" in message


class Made:
    """A TrainJob in the place of the PyTorchJob, and what it has made: a JobSet and that's Job."""

    def __init__(self, server: Server, world: Any) -> None:
        self.index = watched(server, world)
        plan = server.objects["energyplans/plan"]
        plan["spec"]["job"] |= {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob"}
        train = server.objects.pop("pytorchjobs/gpt3")
        by_train = owned_by("trainer.kubeflow.org/v1alpha1", "TrainJob", "gpt3", world.job.uid)
        by_set = owned_by("jobset.x-k8s.io/v1alpha2", "JobSet", "gpt3", "set")
        self.owner = owned_by("batch/v1", "Job", "gpt3-node-0", "job")
        self.index.put(TRAIN_JOBS, train)
        self.index.put(JOB_SETS, self._made("gpt3", "set", by_train))
        self.index.put(JOBS, self._made("gpt3-node-0", "job", by_set))
        self.index.put(JOBS, self._made("mine", "mine"))

    @staticmethod
    def _made(name: str, uid: str, *owners: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"namespace": "team", "name": name, "uid": uid, "ownerReferences": owners}}


def test_pods_of_a_train_job_are_those_of_the_job_of_its_set_and_of_this_very_run(
    server: Server, api: Api, world: Any
) -> None:
    made = Made(server, world)
    pods = [training_pod(number, "") for number in range(4)]
    owners = [made.owner, made.owner, {**made.owner, "uid": "before"}, owned_by("batch/v1", "Job", "mine", "mine")]
    for pod, owner in zip(pods, owners, strict=True):
        pod["metadata"]["ownerReferences"] = [owner]
    server.objects["team/pods"] = {"items": pods}
    for number, outcome in enumerate(("Injected", "Before")):
        node_tells(made.index, number, outcome)
    reason, message = injected_condition(server, api, made.index, Means(Way.NRI))
    assert reason == "PodsPredateInjector"
    assert message.startswith("1 of 2 pods of TrainJob gpt3 (gpt3-worker-1 on node node-1) ran before")


@pytest.mark.parametrize(("uid", "told"), [("job", True), ("before", False), ("mine", False)])
def test_what_refuses_a_train_jobs_pods_is_told_by_the_events_of_its_sets_job(
    server: Server, api: Api, world: Any, uid: str, told: bool
) -> None:
    made = Made(server, world)
    event = {
        "involvedObject": {"kind": "Job", "name": "mine" if uid == "mine" else "gpt3-node-0", "uid": uid},
        "lastTimestamp": "2026-01-01T00:00:00Z",
        "message": "Error creating: no hostPath here",
    }
    server.objects["team/pods"] = {"items": []}
    server.objects["team/events"] = {"metadata": {}, "items": [event]}
    reason, message = injected_condition(server, api, made.index, Means(Way.NRI))
    assert reason == "NoPods"
    assert ("no hostPath here" in message) == told


class Crowd(Api):
    """A namespace with far more Events than anybody wants to read, and what was asked of it."""

    def __init__(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}")))
        self.asked: list[str] = []
        monkeypatch.setattr(client.CoreV1Api, "list_namespaced_event", self._page)

    def _page(self, namespace: str, *, field_selector: str, limit: int, **_: Any) -> SimpleNamespace:
        assert len(self.asked) < 9, "it reads on and on"
        self.asked.append(field_selector)
        event = {"involvedObject": {"name": "another", "uid": "x"}, "lastTimestamp": "2026-01-01T00:00:00Z"}
        return SimpleNamespace(data=json.dumps({"metadata": {"continue": "more"}, "items": [event] * limit}))


def test_of_what_refuses_pods_a_few_pages_are_read_and_of_the_job_alone_where_it_makes_them_itself(
    server: Server, world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked for again and again, and every job of the namespace may have its Events."""
    server.objects["team/pods"] = {"items": []}
    api = Crowd(server, monkeypatch)
    assert injected_condition(server, api, watched(server, world), Means(Way.NRI))[0] == "NoPods"
    own = f"reason=FailedCreatePod,involvedObject.kind=PyTorchJob,involvedObject.uid={world.job.uid}"
    assert api.asked == [own] * 4
    api.asked.clear()
    injected_condition(server, api, Made(server, world).index, Means(Way.NRI))
    assert api.asked == ["reason=FailedCreate,involvedObject.kind=Job"] * 4


def node_tells(index: Index, number: int, outcome: str) -> None:
    """The node of this number reports what became of the pod of the same number."""
    made = InjectionReport(pod_uid=f"pod-{number}", namespace="team", pod="p", container="c", outcome=outcome)
    status = NodeReportStatus(injection=(made,), injector="Ready")
    index.put(NODE_REPORTS, {"metadata": {"name": f"node-{number}"}, "status": status.to_api()})


def test_where_the_node_injects_its_report_says_what_became_of_a_pod(server: Server, api: Api, world: Any) -> None:
    """The namespace isn't even asked for: no level of Pod Security is in the way."""
    index = watched(server, world)
    server.objects["team/pods"] = {"items": [training_pod(number, world.job.uid) for number in range(2)]}
    for number, outcome in enumerate(("Injected", "Before")):
        node_tells(index, number, outcome)
    reason, message = injected_condition(server, api, index, Means(Way.NRI))
    assert reason == "PodsPredateInjector"
    assert message.startswith("1 of 2 pods of PyTorchJob gpt3 (gpt3-worker-1 on node node-1) ran before")


def test_a_pod_without_a_gpu_needs_no_agent_on_its_node(server: Server, api: Api, world: Any) -> None:
    index = watched(server, world)
    master, worker = training_pod(0, world.job.uid), training_pod(1, world.job.uid)
    del master["spec"]["containers"][0]["resources"]
    server.objects["team/pods"] = {"items": [master, worker]}
    node_tells(index, 1, "Injected")
    _, message = injected_condition(server, api, index, Means(Way.NRI))
    assert message.startswith("Node node-1 has no agent"), "that of the pod that trains is looked for alone"


def test_of_a_thousand_nodes_the_one_without_a_report_is_asked_for_its_agent(
    server: Server, api: Api, world: Any
) -> None:
    index = watched(server, world)
    server.objects["team/pods"] = {"items": [training_pod(number, world.job.uid) for number in range(1000)]}
    for number in range(1000):
        if number != 700:
            node_tells(index, number, "Injected")
    reason, message = injected_condition(server, api, index, Means(Way.NRI))
    assert reason == "NoAgent"
    assert message.startswith("Node node-700 has no agent")
    assert server.gets.count("v1/pods") == 3


@pytest.mark.parametrize(
    ("status", "waiting"),
    [
        ({"phase": "Running"}, None),
        ({"phase": "Pending"}, "Pending"),
        ({}, "None"),
        ({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "PodInitializing"}}}]}, "Pending"),
        (
            {"phase": "Pending", "initContainerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}}]},
            "ImagePullBackOff",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes"}
                ],
            },
            "Unschedulable: 0/2 nodes",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "a gate"}
                ],
            },
            "SchedulingGated: a gate",
        ),
    ],
)
def test_why_a_pod_does_not_run_is_told_in_the_kubelets_or_the_schedulers_words(
    status: dict[str, Any], waiting: str | None
) -> None:
    job = TrainingJob("u", "gpt3", "plan", None)
    body = {**training_pod(0, "u"), "status": status}
    assert as_seen(body, job, Index(), Means(), None, "2026-01-01T00:00:00Z").waiting == waiting
