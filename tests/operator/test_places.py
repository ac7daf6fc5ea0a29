"""What an agent tells of ranks whose pods aren't on its node steers nobody, whatever it tells."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import EnergyPlanStatus, NodeReportStatus
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import Index
from joulepath_operator.control.places import Places, nodes_by_pod, parted
from joulepath_operator.control.reconcile import Reconciler
from joulepath_operator.facts.gang import Gang, rivals
from joulepath_operator.facts.names import JOB_PLANS, NODE_REPORTS
from joulepath_operator.metrics import Metrics
from joulepath_operator.planning.pool import PlannerPool
from tests.operator.bare_api import PLAN, Server, job_plan, training_pod, watched

PLACES = {"pod-0": "node-0", "pod-1": "node-1"}
LATEST = 2**31
"""An attempt of the year 2088."""


def forged(world: Any, **changes: Any) -> dict[str, Any]:
    """The NodeReport of a node where the job has no pod: its ranks, as they are or changed, of an attempt to come."""
    node = world.nodes()[0]
    ranks = [rank.model_copy(update={"iteration_time_s": 99.0, **changes}) for rank in node.report.ranks]
    report = node.report.model_copy(update={"attempt": LATEST, "world_size": 4, "ranks": tuple(ranks)})
    status = NodeReportStatus(gpus=node.gpus, jobs=(report,)).to_api()
    return {"metadata": {"name": "stolen"}, "status": status}


def told(index: Index, world: Any) -> Any:
    return index.nodes("team", world.job.uid)


def test_a_rank_counts_from_the_node_where_its_pod_runs_alone(active: Any) -> None:
    nodes = active.nodes()
    assert parted(nodes, PLACES) == (nodes, False)
    assert all(one is other for one, other in zip(parted(nodes, PLACES)[0], nodes, strict=True))
    (first, second), left_out = parted(nodes, PLACES | {"pod-1": "node-0"})
    assert left_out
    assert first.report.ranks == nodes[0].report.ranks
    assert second.report.ranks == ()
    (first, second), left_out = parted(nodes, {"pod-1": "node-1"})
    assert (left_out, first.report.ranks, second) == (True, (), nodes[1])


def test_a_pod_that_no_node_has_yet_is_nowhere() -> None:
    waits, runs = training_pod(0, "u"), training_pod(1, "u")
    del waits["spec"]["nodeName"]
    assert nodes_by_pod([waits, runs]) == {"pod-1": "node-1"}


@pytest.mark.parametrize("changes", [{}, {"pod_uid": "pod-2"}, {"pod_uid": "pod-1", "rank": 0}], ids=str)
def test_a_report_of_another_node_changes_nothing_of_what_is_known_of_the_job(
    active: Any, changes: dict[str, Any]
) -> None:
    index = Index(clock=lambda: 0.0)
    for node in active.nodes():
        status = NodeReportStatus(gpus=node.gpus, jobs=(node.report,)).to_api()
        index.put(NODE_REPORTS, {"metadata": {"name": node.node}, "status": status})
    sound, _ = parted(told(index, active), PLACES)
    index.put(NODE_REPORTS, forged(active, **changes))
    assert Gang.of(told(index, active)) != Gang.of(sound), "it would have"
    nodes, left_out = parted(told(index, active), PLACES)
    assert left_out
    assert Gang.of(nodes) == Gang.of(sound)
    assert rivals(nodes) is None


def test_what_a_node_tells_of_gpus_of_others_is_nothing(active: Any) -> None:
    first, second = active.nodes()
    lies = tuple(gpu.model_copy(update={"refused": "MIG"}) for gpu in first.gpus)
    liar = replace(second, gpus=(*second.gpus, *lies))
    assert Gang.of((first, liar)) == Gang.of((first, second))


def test_pods_are_listed_once_for_all_looks_at_a_whole_gang_and_again_for_pods_that_are_new(active: Any) -> None:
    now_s, job = [0.0], active.job.uid
    places, nodes = Places(lambda: now_s[0]), active.nodes()
    assert places.standing(job, nodes) == (parted(nodes, {})[0], True)
    pods = [training_pod(number, job) for number in range(2)]
    places.put(job, pods)
    assert places.standing(job, nodes) == (nodes, False)
    assert places.standing("another", nodes)[1], "of which nothing is known"
    stranger = nodes[0].report.model_copy(
        update={"ranks": tuple(rank.model_copy(update={"pod_uid": "new"}) for rank in nodes[0].report.ranks)}
    )
    more = (*nodes, replace(nodes[0], node="stolen", report=stranger))
    assert not places.standing(job, more)[1], "however often it makes one up"
    now_s[0] = 15.0
    assert places.standing(job, more)[1]
    assert places.standing(job, more[1:])[1], "at once, where ranks are missing"


def test_a_plan_in_force_stays_and_is_told_as_before_whatever_another_node_tells(
    server: Server, api: Api, active: Any
) -> None:
    index, (stored,) = watched(server, active), active.plans.values()
    plan = job_plan(stored)
    index.put(JOB_PLANS, plan)
    server.objects[f"jobplans/{stored.name}"] = plan
    index.put(NODE_REPORTS, forged(active))
    asyncio.run(Reconciler(api, index, PlannerPool(), Metrics())(PLAN))
    status = EnergyPlanStatus.from_api(server.objects["energyplans/plan"]["status"])
    assert status.phase == "Active"
    assert server.deletes == []
    assert server.puts in ([], ["energyplans/plan"])
