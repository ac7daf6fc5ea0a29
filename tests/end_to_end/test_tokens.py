"""By an agent's token that was stolen on another node, whatever is told of a job steers nobody.

`uneven` trains since the modules before.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from joulepath_agent.cluster.objects import ApiServer
from joulepath_crds import GROUP, VERSION, JobPlanSpec
from tests.agent.cluster.real_api import api_server
from tests.end_to_end.product import RELEASE, Product
from tests.end_to_end.waiting import gpus_of, in_force, wait_iterations
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven")]

ELSEWHERE: Final = "elsewhere"
"""A node that nothing of the job runs on, nor anything else."""
LATEST: Final = 2**31
"""An attempt of the year 2088."""
REPORTS: Final = ("apis", GROUP, VERSION, "nodestates")


@pytest.fixture
def thief(release: Product) -> Iterator[ApiServer]:
    """The API server as whoever has the token of the agent of that node has it."""
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": ELSEWHERE}, "spec": {"unschedulable": True}}
    release.kubectl("apply", "--filename", "-", stdin=json.dumps(node))
    try:
        bound = ("--bound-object-kind=Node", f"--bound-object-name={ELSEWHERE}")
        token = release.kubectl("create", "token", f"{RELEASE}-agent", *bound).strip()
        yield api_server(release.cluster.kubeconfig, token)
    finally:
        release.kubectl("delete", "node,nodestate", ELSEWHERE, "--ignore-not-found")


def forged(release: Product) -> dict[str, Any]:
    """What node0 tells, as if its ranks were all of an attempt to come, and three times as slow."""
    status: dict[str, Any] = json.loads(release.kubectl("get", "nodestate", "node0", "--output", "json"))["status"]
    for job in status["jobs"]:
        job |= {"attempt": LATEST, "worldSize": len(job["ranks"])}
        for rank in job["ranks"]:
            rank["iterationTimeSeconds"] = 3 * rank.get("iterationTimeSeconds", 1.0)
    return status


def test_neither_the_report_of_a_node_nor_the_plan_of_a_job_there_can_be_changed(
    release: Product, record: Recorder, thief: ApiServer
) -> None:
    in_force(release, record)
    plan = record.plan("uneven")
    assert plan is not None
    gpus = {node: gpus_of(record, "uneven", node) for node in ("node0", "node1")}
    status, told = {"status": forged(release)}, len(record.versions("jobplans"))
    with pytest.raises(OSError, match="an agent writes the report and the Lease of its own node"):
        thief.patch(status, *REPORTS, "node0", "status")
    thief.create({"apiVersion": f"{GROUP}/{VERSION}", "kind": "NodeState", "metadata": {"name": ELSEWHERE}}, *REPORTS)
    thief.patch(status, *REPORTS, ELSEWHERE, "status")
    wait_iterations(release, gpus, 12)
    assert record.ranks("uneven", node=ELSEWHERE), "it was told"
    since = [JobPlanSpec.from_api(one.body["spec"]) for one in record.versions("jobplans")[told:]]
    assert {one.attempt for one in since if one.job == "uneven"} <= {plan.attempt}
    release.kubectl("delete", "nodestate", ELSEWHERE)
    in_force(release, record)
