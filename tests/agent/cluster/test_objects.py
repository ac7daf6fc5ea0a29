"""What an agent reads and writes of the API server's objects, and what it makes of failures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.heartbeat import Heartbeat
from joulepath_agent.cluster.objects import ApiServer
from joulepath_crds import NodeReportStatus
from tests.agent.cluster.tied import TiedAgent
from tests.agent.room import wait_until
from tests.agent.soaking.cluster import Cluster, served


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(0.2, pods={"pod-a": ("job", ("GPU-0",))})


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    with served(cluster) as where:
        yield where


@pytest.fixture
def connection(url: str) -> ApiServer:
    return ApiServer(url)


def test_a_pod_is_read_as_the_api_server_has_it(cluster: Cluster, connection: ApiServer) -> None:
    tied = NodeApi(connection, "node", "joulepath")
    assert tied.read_pod("default", "pod-a") == cluster.pod("pod-a")
    assert tied.read_pod("default", "nobody") is None


def test_a_server_that_is_not_there_is_an_oserror() -> None:
    tied = NodeApi(ApiServer("http://127.0.0.1:9"), "node", "joulepath")
    with pytest.raises(OSError, match="Connection refused"):
        tied.read_pod("default", "pod-a")


def test_the_lease_is_made_where_there_is_none_and_renewed_afterwards(cluster: Cluster, connection: ApiServer) -> None:
    heart = Heartbeat(connection, "node-7", "joulepath")
    heart.beat(0.0)
    heart.beat(239.0)
    assert "signs of life" not in cluster.fed
    heart.beat(240.0)
    (path, lease), *others = cluster.made.items()
    assert path == "/apis/coordination.k8s.io/v1/namespaces/joulepath/leases/joulepath-agent-node-7"
    assert not others
    assert cluster.fed["signs of life"] == 1, "the second time there is one"
    assert lease["spec"]["holderIdentity"] == "node-7"
    assert len(lease["spec"]["renewTime"]) == len("2026-01-01T00:00:00.000000Z"), "MicroTime"


def test_what_it_knows_is_made_in_three_parts_with_its_node_as_owner(cluster: Cluster, connection: ApiServer) -> None:
    tied = NodeApi(connection, "node-7", "joulepath")
    tied.run(TiedAgent(status=NodeReportStatus(agent_version="1")))
    wait_until(lambda: cluster.fed["reports"] >= 3, "all are written")
    tied.stop()
    owner = {"apiVersion": "v1", "kind": "Node", "name": "node-7", "uid": "node-uid"}
    made = {one["kind"]: one["metadata"] for one in cluster.made.values() if one["kind"] != "Lease"}
    assert made.keys() == {"NodeReport", "NodeState", "NodeMeasurement"}
    assert all(one == {"name": "node-7", "ownerReferences": [owner]} for one in made.values())


def test_an_agent_that_waits_for_another_writes_nothing(cluster: Cluster, connection: ApiServer) -> None:
    tied, agent = NodeApi(connection, "node-7", "joulepath"), TiedAgent(waits=True)
    tied.run(agent)
    wait_until(lambda: agent.forgets > 2, "time goes by")
    assert not cluster.made
    agent.waits = False
    wait_until(lambda: len(cluster.made) == 4, "all that it tells and its lease are there")
    tied.stop()


def test_a_review_is_asked_for(connection: ApiServer) -> None:
    spec = {"token": "secret"}
    assert NodeApi(connection, "node", "joulepath").review("TokenReview", spec) == {"reviewed": spec}
