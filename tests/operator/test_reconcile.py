"""The Kubernetes API as the operator asks it, against a server that answers as real ones do at their worst."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from joulepath_crds import EnergyPlanStatus, content_hash
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import WATCHED, Index
from joulepath_operator.control.queue import KeyedQueue
from joulepath_operator.control.reconcile import Reconciler
from joulepath_operator.control.watches import registry
from joulepath_operator.facts.names import (
    ENERGY_PLANS,
    JOB_PLANS,
    NODE_REPORTS,
    NamespacedName,
    Resource,
)
from joulepath_operator.facts.request import Answer as Planned
from joulepath_operator.facts.request import Request
from joulepath_operator.jobs.pytorchjob import PYTORCH_JOBS
from joulepath_operator.metrics import Metrics
from joulepath_operator.planning.pool import PlannerPool
from joulepath_operator.runner import list_first, relist, unheard, until_allowed
from tests.operator.bare_api import PLAN, TAKEN, Answer, Server, job_plan, sweep_of, watched


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


def test_all_objects_are_listed_in_small_pages_each_asked_for_when_the_one_before_was_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, str | None]] = []

    def answer(self: object, *where: str, limit: int, _continue: str | None, **_: Any) -> SimpleNamespace:
        asked.append((limit, _continue))
        metadata = {} if _continue else {"continue": "more"}
        items = [{"metadata": {"name": f"{len(asked)}-{number}"}} for number in range(2)]
        return SimpleNamespace(data=json.dumps({"metadata": metadata, "items": items}))

    monkeypatch.setattr(client.CustomObjectsApi, "list_cluster_custom_object", answer)
    bodies = api.list_all(PYTORCH_JOBS)
    assert bodies is not None
    assert next(bodies)["metadata"]["name"] == "1-0"
    assert asked == [(25, None)]
    assert [one["metadata"]["name"] for one in bodies] == ["1-1", "2-0", "2-1"]
    assert asked[1:] == [(25, "more")]


def test_an_empty_resource_is_known(server: Server, api: Api) -> None:
    server.objects["v1/pytorchjobs"] = {"metadata": {}, "items": []}
    bodies = api.list_all(PYTORCH_JOBS)
    assert bodies is not None
    assert not [*bodies]


def test_a_kind_that_is_unknown_for_a_moment_takes_nothing_out(
    server: Server, api: Api, new_world: Callable[..., Any]
) -> None:
    """An API server that has just started answers 404 before it has read the definitions."""
    world = new_world()
    index = watched(server, world)

    async def handle(key: NamespacedName) -> None: ...

    asyncio.run(relist(api, index, KeyedQueue(handle)))
    assert len(index.nodes("team", world.job.uid)) == 2


def test_a_kind_that_no_watch_tells_of_is_listed_and_told_of_until_one_does(server: Server, api: Api) -> None:
    """kopf may miss that it is there: it looks once, when the definition comes, and may be too soon."""
    index = Index()
    (jobset,) = (one for one in WATCHED if one.plural == "jobsets")
    body = {"metadata": {"namespace": "team", "name": "gpt3", "uid": "s"}}
    server.objects["v1alpha2/jobsets"] = {"metadata": {}, "items": [body]}

    async def handle(key: NamespacedName) -> None: ...

    assert {one.plural for one in unheard(index)} >= {"pytorchjobs", "trainjobs", "jobsets", "jobs"}
    asyncio.run(relist(api, index, KeyedQueue(handle), unheard(index)))
    found = index.job(jobset, ("team", "gpt3"))
    assert found is not None
    assert found.uid == "s"
    index.heard.add(jobset)
    assert jobset not in unheard(index)


def test_an_operator_with_an_older_cluster_role_starts_and_says_what_right_is_missing(
    server: Server, api: Api, caplog: pytest.LogCaptureFixture, new_world: Callable[..., Any]
) -> None:
    server.forbidden = {"v1alpha1/energypolicies", "v1/jobs"}
    index = watched(server, new_world())

    async def handle(key: NamespacedName) -> None: ...

    async def start() -> None:
        queue = KeyedQueue(handle)
        await list_first(api, index, queue, ())
        assert {one.plural for one in index.closed} == {"energypolicies", "jobs"}
        assert "cannot list it" in caplog.text
        assert "may not list and watch energypolicies of joulepath.dev" in index.unreadable
        assert not set(unheard(index)) & index.closed
        handlers: Any = registry(index, lambda key: None)
        watches = {handler.id for handler in handlers._watching.get_all_handlers()}
        assert watches == {one.plural for one in WATCHED} - {"energypolicies", "jobs"}
        end = asyncio.create_task(until_allowed(api, index, queue, 0.01))
        asked = len(server.gets)
        while len(server.gets) < asked + 5:
            await asyncio.sleep(0.01)
        assert not end.done()
        server.forbidden = {"v1/jobs"}
        await end

    asyncio.run(start())


def test_a_kind_that_is_forbidden_for_a_moment_only_is_read(server: Server, api: Api) -> None:
    """An API server that has just started doesn't know yet who may what."""
    index, server.forbidden = Index(), {"v1alpha1/energypolicies"}

    async def handle(key: NamespacedName) -> None: ...

    async def start() -> None:
        listing = asyncio.create_task(list_first(api, index, KeyedQueue(handle), (0.5, 0.5)))
        await asyncio.sleep(0.3)
        server.forbidden = set()
        await listing

    asyncio.run(start())
    assert not index.closed


def test_kinds_of_jobs_that_may_not_be_read_hinder_nobody_else(server: Server, api: Api) -> None:
    index, server.forbidden = Index(), {"v1/jobs", "v1alpha2/jobsets"}

    async def handle(key: NamespacedName) -> None: ...

    asyncio.run(list_first(api, index, KeyedQueue(handle), ()))
    assert index.closed
    assert not index.unreadable


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
    server.objects["v1/pods"] = {"items": []}
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
