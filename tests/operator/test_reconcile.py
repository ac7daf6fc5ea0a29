"""The Kubernetes API as the operator asks it, against a server that answers as real ones do at their worst."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from joulepath_crds import ANNOTATION, JOB_UID_LABEL, EnergyPlanStatus, InjectionReport, NodeReportStatus, content_hash
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import Index
from joulepath_operator.control.pods import as_seen
from joulepath_operator.control.queue import KeyedQueue
from joulepath_operator.control.reconcile import Reconciler
from joulepath_operator.facts.absence import Means, Way
from joulepath_operator.facts.labels import INJECTED_ANNOTATION, INPUTS_ANNOTATION
from joulepath_operator.facts.names import (
    ENERGY_PLANS,
    ENERGY_PROFILES,
    JOB_PLANS,
    NODE_REPORTS,
    NamespacedName,
    Resource,
)
from joulepath_operator.facts.observation import TrainingJob
from joulepath_operator.facts.request import Answer as Planned
from joulepath_operator.facts.request import Request
from joulepath_operator.jobs.job import JOBS
from joulepath_operator.jobs.jobset import JOB_SETS
from joulepath_operator.jobs.pytorchjob import PYTORCH_JOBS
from joulepath_operator.jobs.trainjob import TRAIN_JOBS
from joulepath_operator.metrics import Metrics
from joulepath_operator.planning.pool import PlannerPool
from joulepath_operator.runner import relist

Answer = tuple[int, Any]
TAKEN: Answer = (409, {"message": "already exists"})
PLAN = ("team", "plan")


class SlowPlanner:
    """Answers as the world does once it is `ready`."""

    def __init__(self, world: Any) -> None:
        self.world, self.ready = world, asyncio.Event()
        self.asked: list[Request] = []
        self.cancelled: list[Request] = []

    async def plan(self, request: Request, namespace: str) -> Planned:
        self.asked.append(request)
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            self.cancelled.append(request)
            raise
        answer: Planned = self.world.answer(request)
        return answer


class Server(HTTPServer):
    """Objects by the end of their path; whatever is posted is answered by `refusal`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Any] = {}
        self.refusal: Answer = (404, {})
        self.posts = 0
        self.gets: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.puts: list[str] = []
        self.unknown: set[str] = set()
        """Fields and phases of a status that its CustomResourceDefinition doesn't have."""
        self.deletes: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer[0])
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer[1]).encode())

    def _name(self) -> str:
        return "/".join(self.path.partition("?")[0].removesuffix("/status").rsplit("/", 2)[1:])

    def do_GET(self) -> None:
        self.server.gets.append(self._name())
        found = self.server.objects.get(self._name())
        self._answer((404, {}) if found is None else (200, found))

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._name() not in self.server.objects:
            self._answer((404, {}))
            return
        if (status := body.get("status", {})).get("phase") in self.server.unknown:
            self._answer((422, {"message": f"status.phase: Unsupported value: {status['phase']}"}))
            return
        for field in self.server.unknown & status.keys():
            del status[field]
        self.server.objects[self._name()] = body
        self.server.puts.append(self._name())
        self._answer((200, body))

    def do_DELETE(self) -> None:
        self.server.deletes.append(self._name())
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        version = asked.get("preconditions", {}).get("resourceVersion")
        found = self.server.objects.get(self._name())
        if found is not None and version not in (None, found["metadata"]["resourceVersion"]):
            self._answer((409, {"message": "the object has been modified"}))
        else:
            self._answer((404, {}) if self.server.objects.pop(self._name(), None) is None else (200, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._name() == "team/events":
            self.server.events.append(body)
            self._answer((403, {"message": "may not"}))
            return
        self.server.posts += 1
        status, said = self.server.refusal
        self._answer((status, body | said if status == 201 else said))

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def api(server: Server) -> Api:
    return Api(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}")))


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [(ENERGY_PLANS, "kubectl apply -f crds/"), (PYTORCH_JOBS, "")],
)
def test_a_kind_that_the_cluster_does_not_know_is_told_with_the_remedy_but_a_kind_of_job_is_left_out(
    api: Api, caplog: pytest.LogCaptureFixture, kind: Resource, remedy: str
) -> None:
    with caplog.at_level(logging.INFO):
        assert api.list_all(kind) is None, "which isn't to say that there are no such objects"
    assert remedy in caplog.text
    assert (kind.plural in caplog.text) == bool(remedy)


def test_a_kind_that_is_unknown_for_a_moment_takes_nothing_out(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """An API server that has just started answers 404 before it has read the definitions."""
    world = new_world()
    index = watched(server, world)

    async def handle(key: NamespacedName) -> None: ...

    asyncio.run(relist(api, index, KeyedQueue(handle)))
    assert len(index.nodes("team", world.job.uid)) == 2


def watched(server: Server, world: Any) -> Index:
    """A server and an index that hold the EnergyPlan, the job, its nodes and its profiles."""
    index = Index()
    metadata = {"namespace": "team", "name": "plan", "uid": "u", "resourceVersion": "1", "generation": 1}
    body = {"metadata": metadata, "spec": {"job": {"name": "gpt3"}}, "status": world.status.to_api()}
    server.objects["energyplans/plan"] = body
    job = {"namespace": "team", "name": "gpt3", "uid": world.job.uid, "annotations": {ANNOTATION: "plan"}}
    server.objects["pytorchjobs/gpt3"] = {"metadata": job}
    for node in world.nodes():
        status = NodeReportStatus(gpus=node.gpus, jobs=(node.report,)).to_api()
        index.put(NODE_REPORTS, {"metadata": {"name": node.node}, "status": status})
    for profile in world.profiles.values():
        labels = {JOB_UID_LABEL: profile.job_uid}
        metadata = {"namespace": "team", "name": profile.name, "labels": labels}
        index.put(ENERGY_PROFILES, {"metadata": metadata, "spec": profile.spec.to_api()})
    return index


def test_nobody_waits_for_the_planner(server: Server, api: Api, active: Any) -> None:
    """It is asked once, however often the EnergyPlan is looked at; its answer brings the EnergyPlan back."""
    back: list[NamespacedName] = []
    server.refusal = (201, {})

    async def play() -> None:
        planner = SlowPlanner(active)
        reconciler = Reconciler(api, watched(server, active), planner, Metrics(), again=back.append)
        for _ in range(3):
            await reconciler(PLAN)
        assert len(planner.asked) == 1
        assert server.posts == 0
        planner.ready.set()
        while not back:
            await asyncio.sleep(0.01)
        await reconciler(PLAN)
        assert server.posts == 1
        planner.ready.clear()
        server.objects["energyplans/plan"]["spec"]["maxSlowdownPercent"] = 5
        await reconciler(PLAN)
        await asyncio.sleep(0)
        assert len(planner.asked) == 2
        del server.objects["energyplans/plan"]
        server.objects["team/energyplans"] = {"items": []}
        await reconciler(PLAN)
        await asyncio.sleep(0)
        assert planner.cancelled == planner.asked[1:], "what nobody asks for any more is not computed"

    asyncio.run(play())


def test_a_node_that_is_silent_for_a_moment_does_not_end_the_planner(server: Server, api: Api, active: Any) -> None:
    """An upgrade restarts one agent after the other: a plan that takes longer than a restart would never come."""
    server.objects["team/pods"] = {"items": []}
    server.objects["team/events"] = {"metadata": {}, "items": []}
    labels = {"joulepath.dev/injection": "volumes"}
    server.objects["namespaces/team"] = {"metadata": {"name": "team", "labels": labels}}

    async def play() -> None:
        index, planner = watched(server, active), SlowPlanner(active)
        reconciler = Reconciler(api, index, planner, Metrics())
        await reconciler(PLAN)
        node = active.nodes()[0]
        index.drop(NODE_REPORTS, {"metadata": {"name": node.node}})
        for _ in range(2):
            await reconciler(PLAN)
        assert len(planner.asked) == 1
        assert planner.cancelled == []
        server.objects["pytorchjobs/gpt3"]["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
        await reconciler(PLAN)
        await asyncio.sleep(0)
        assert planner.cancelled == planner.asked, "a job that is over needs no plan"

    asyncio.run(play())


@pytest.mark.parametrize(
    "refusal",
    [
        (422, {"message": "spec.sweep: Invalid value"}),
        (500, {"message": "etcdserver: request is too large"}),
    ],
)
def test_a_plan_that_the_api_server_never_takes_is_told_and_not_tried_again(
    server: Server, api: Api, new_world: Callable[..., Any], refusal: Answer
) -> None:
    index = watched(server, new_world())
    server.refusal = refusal
    reconciler = Reconciler(api, index, PlannerPool(), Metrics())
    for _ in range(2):
        asyncio.run(reconciler(PLAN))
    told = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert told.phase == "Refused"
    assert refusal[1]["message"] in told.message
    assert server.posts == 1


def test_a_plan_that_is_withdrawn_is_told_in_an_event_and_goes_though_that_is_refused(
    server: Server, api: Api, active: Any
) -> None:
    active.excess = 0.04
    index, (stored,) = watched(server, active), active.plans.values()
    index.put(JOB_PLANS, job_plan(stored))
    server.objects[f"jobplans/{stored.name}"] = job_plan(stored)
    reconciler = Reconciler(api, index, SlowPlanner(active), Metrics())
    assert asyncio.run(reconciler(PLAN)) == 1.0
    (event,) = server.events
    assert event["involvedObject"] | {"kind": "EnergyPlan", "name": "plan", "uid": "u"} == event["involvedObject"]
    assert (event["type"], event["reason"]) == ("Warning", "PlanWithdrawn")
    assert "0.00% are allowed" in event["message"]
    assert server.deletes == [f"jobplans/{stored.name}"]


def sweep_of(world: Any) -> Any:
    """The JobPlan that is written first."""
    copied = world.copy()
    while (plan := (decision := copied.decide()).write_plan) is None:
        assert copied._carry_out(decision)
    return plan


def job_plan(stored: Any, **metadata: Any) -> dict[str, Any]:
    owner = {"kind": "EnergyPlan", "name": "plan", "uid": "u"}
    told = {"namespace": "team", "name": stored.name, "uid": "u7", "resourceVersion": "7", "ownerReferences": [owner]}
    told |= {"labels": {JOB_UID_LABEL: stored.spec.job_uid}} | metadata
    return {"metadata": {**told, "annotations": {INPUTS_ANNOTATION: stored.inputs}}, "spec": stored.spec.to_api()}


def test_a_job_plan_that_the_index_took_for_deleted_is_taken_up_again(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """A list that lacked it must not keep the operator from it: what the API server has, is."""
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world))
    index.put(JOB_PLANS, plan)
    index.replace(JOB_PLANS, [], index.uids(JOB_PLANS))
    assert index.plans(PLAN) == ()
    server.objects[f"jobplans/{plan['metadata']['name']}"], server.refusal = plan, TAKEN
    reconciler = Reconciler(api, index, PlannerPool(), Metrics())
    assert asyncio.run(reconciler(PLAN)) == 0.5
    assert [one.version for one in index.plans(PLAN)] == ["7"], "the next decision is made from it"


def test_a_job_plan_that_cannot_be_read_is_replaced(server: Server, api: Api, new_world: Callable[..., Any]) -> None:
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world))
    path = f"jobplans/{plan['metadata']['name']}"
    server.objects[path], server.refusal = plan | {"spec": {}}, TAKEN
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    assert path in server.puts
    assert server.objects[path]["metadata"]["resourceVersion"] == "7"
    assert len(index.plans(PLAN)) == 1


def test_a_job_plan_whose_content_is_not_that_of_its_hash_is_made_anew(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """No agent plays it: an operator that hashed otherwise has made it, or somebody has changed it."""
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world))
    path, sound = f"jobplans/{plan['metadata']['name']}", plan["spec"]
    server.objects[path] = plan | {"spec": sound | {"defaultClockMHz": 1200}}
    server.refusal = TAKEN
    index.put(JOB_PLANS, server.objects[path])
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    assert server.objects[path]["spec"] == sound


def test_a_plan_of_which_the_api_server_drops_a_part_is_told_with_the_remedy(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """As one does whose CustomResourceDefinition is older than the operator."""
    world = new_world()
    index, dropped = watched(server, world), sweep_of(world).spec.to_api()
    del dropped["defaultClockMHz"]
    server.refusal = (201, {"spec": dropped})
    reconciler = Reconciler(api, index, PlannerPool(), Metrics())
    for _ in range(2):
        asyncio.run(reconciler(PLAN))
    told = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert told.phase == "Refused"
    assert "is not stored as it was written" in told.message
    assert "kubectl apply --server-side -f crds/" in told.message
    assert server.posts == 1


@pytest.mark.parametrize("unknown", ["topology", "Profiling"])
def test_a_status_that_an_older_definition_does_not_have_is_told_with_the_remedy_and_written_no_more(
    server: Server, api: Api, new_world: Callable[..., Any], unknown: str
) -> None:
    world = new_world()
    index = watched(server, world)
    server.unknown = {unknown}
    reconciler = Reconciler(api, index, PlannerPool(), Metrics())
    for _ in range(3):
        asyncio.run(reconciler(PLAN))
    told = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert told.phase == "Refused"
    assert "kubectl apply --server-side -f crds/" in told.message
    assert len(server.puts) <= 2
    assert server.posts == 0


def test_a_job_plan_that_the_cluster_lacks_is_forgotten(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """The event of its deletion may have been lost."""
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world))
    plan["spec"]["attempt"] = 5
    plan["spec"]["hash"] = content_hash(plan["spec"])
    index.put(JOB_PLANS, plan)
    assert asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN)) == 0.5
    assert index.plans(PLAN) == ()


def test_a_job_plan_whose_deletion_is_held_up_is_told_and_waited_for(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world), deletionTimestamp="2026-01-01T00:00:00Z")
    name, server.refusal = plan["metadata"]["name"], TAKEN
    server.objects[f"jobplans/{name}"] = plan
    moments = iter(f"2026-01-01T00:00:{second:02d}Z" for second in range(60))
    reconciler = Reconciler(api, index, PlannerPool(), Metrics(), now=lambda: next(moments))
    for _ in range(4):
        assert asyncio.run(reconciler(PLAN)) == 15.0
    told = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert f"jobplans {name} is being deleted" in told.message
    assert next(one.reason for one in told.conditions if one.type == "Degraded") == "BeingDeleted"
    assert len(server.puts) <= 2, "a status that says the same is not written again, or its event would end the wait"
    assert server.posts == 0
    del server.objects[f"jobplans/{name}"]
    server.refusal = (201, job_plan(sweep_of(world), uid="u8", resourceVersion="9"))
    asyncio.run(reconciler(PLAN))
    assert server.posts == 1
    told = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert "deleted" not in told.message


GONE = "gone"
OTHER = [{"kind": "EnergyPlan", "name": "plan", "uid": "another"}]


@pytest.mark.parametrize(
    ("owners", "energy_plan"),
    [
        ([], GONE),  # deleted with --cascade=orphan
        (OTHER, GONE),  # nobody collects garbage
        ([], "u"),  # another one has its name since
        (OTHER, "u"),
        ([{"kind": "EnergyPlan", "name": "plan", "uid": "u"}], "being deleted"),  # and that is held up
    ],
)
def test_a_job_plan_without_its_energy_plan_is_deleted(
    server: Server, api: Api, new_world: Callable[..., Any], owners: list[dict[str, str]], energy_plan: str
) -> None:
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world), ownerReferences=owners)
    path = f"jobplans/{plan['metadata']['name']}"
    server.objects[path] = plan
    if energy_plan == GONE:
        server.objects["team/energyplans"] = {"items": []}
        del server.objects["energyplans/plan"]
    elif energy_plan != "u":
        server.objects["energyplans/plan"]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    index.put(JOB_PLANS, plan)
    server.refusal = (201, {})
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    assert path not in server.objects
    assert server.posts == (energy_plan == "u"), "the one that lives has its own made"


def test_no_cache_and_no_api_server_that_has_just_started_makes_a_job_plan_an_orphan(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world))
    path = f"jobplans/{plan['metadata']['name']}"
    server.objects[path] = plan
    index.put(JOB_PLANS, plan)
    energy_plan = server.objects.pop("energyplans/plan")
    with pytest.raises(ApiException):  # it knows no EnergyPlans yet; asked again later
        asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    server.objects["team/energyplans"] = {"items": [energy_plan]}
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    assert path in server.objects


def test_a_job_plan_that_was_taken_over_meanwhile_is_not_deleted(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    index, plan = watched(server, world), job_plan(sweep_of(world), ownerReferences=OTHER)
    path = f"jobplans/{plan['metadata']['name']}"
    index.put(JOB_PLANS, plan)
    server.objects[path] = job_plan(sweep_of(world), resourceVersion="8")
    assert asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN)) == 0.5
    assert path in server.objects


# pods without the trainer


def owned_by(version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    """A reference to a controller."""
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


def training_pod(number: int, job_uid: str, **spec: Any) -> dict[str, Any]:
    """A pod of the job that runs on the node of the same number, as the API server has it."""
    gpus = {"limits": {"nvidia.com/gpu": "4"}}
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {
        "metadata": {
            "name": f"gpt3-worker-{number}",
            "uid": f"pod-{number}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [owned_by("kubeflow.org/v1", "PyTorchJob", "gpt3", job_uid)],
        },
        "spec": {"containers": [{"name": "c", "image": "i", "resources": gpus}], "nodeName": f"node-{number}", **spec},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": running}]},
    }


def injected_condition(server: Server, api: Api, index: Index, means: Means) -> tuple[str, str]:
    """Reason and message, once an EnergyPlan was looked at."""
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics(), means=means)(PLAN))
    status = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    (one,) = (one for one in status.conditions if one.type == "Injected")
    return one.reason, one.message


def test_a_pod_that_the_webhook_leaves_alone_is_told_with_the_webhooks_own_reason(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    world.ranks = 0
    index = watched(server, world)
    labels = {"joulepath.dev/injection": "volumes"}
    server.objects["namespaces/team"] = {"metadata": {"name": "team", "labels": labels}}
    server.objects["v1/pods"] = {"items": []}
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
        server.objects["v1/pods"] = {"items": []}

    @staticmethod
    def _made(name: str, uid: str, *owners: dict[str, Any]) -> dict[str, Any]:
        return {"metadata": {"namespace": "team", "name": name, "uid": uid, "ownerReferences": owners}}


def test_pods_of_a_train_job_are_those_of_the_job_of_its_set_and_of_this_very_run(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    world.ranks = 0
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
    server: Server, api: Api, new_world: Callable[..., Any], uid: str, told: bool
) -> None:
    world = new_world()
    world.ranks = 0
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


def node_tells(index: Index, number: int, outcome: str) -> None:
    """The node of this number reports what became of the pod of the same number."""
    made = InjectionReport(pod_uid=f"pod-{number}", namespace="team", pod="p", container="c", outcome=outcome)
    status = NodeReportStatus(injection=(made,), injector="Ready")
    index.put(NODE_REPORTS, {"metadata": {"name": f"node-{number}"}, "status": status.to_api()})


def test_where_the_node_injects_its_report_says_what_became_of_a_pod(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """The namespace isn't even asked for: no level of Pod Security is in the way."""
    world = new_world()
    world.ranks = 0
    index = watched(server, world)
    server.objects["v1/pods"] = {"items": []}
    server.objects["team/pods"] = {"items": [training_pod(number, world.job.uid) for number in range(2)]}
    for number, outcome in enumerate(("Injected", "Before")):
        node_tells(index, number, outcome)
    reason, message = injected_condition(server, api, index, Means(Way.NRI))
    assert reason == "PodsPredateInjector"
    assert message.startswith("1 of 2 pods of PyTorchJob gpt3 (gpt3-worker-1 on node node-1) ran before")


def test_a_pod_without_a_gpu_needs_no_agent_on_its_node(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    world.ranks = 0
    index = watched(server, world)
    master, worker = training_pod(0, world.job.uid), training_pod(1, world.job.uid)
    del master["spec"]["containers"][0]["resources"]
    server.objects["team/pods"] = {"items": [master, worker]}
    server.objects["v1/pods"] = {"items": []}
    node_tells(index, 1, "Injected")
    _, message = injected_condition(server, api, index, Means(Way.NRI))
    assert message.startswith("Node node-1 has no agent"), "that of the pod that trains is looked for alone"


def test_of_a_thousand_nodes_the_one_without_a_report_is_asked_for_its_agent(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    world = new_world()
    world.ranks = 0
    index = watched(server, world)
    server.objects["v1/pods"] = {"items": []}
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
