"""What the accounts may do, asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from real_cluster import Cluster

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts/joulepath"
RIGHTS = {"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[str]:
    """Accounts and rights of a release of its own, without anything that runs; it is also the namespace's name."""
    name = f"rights-{uuid4().hex[:6]}"
    rendered = yaml.safe_load_all(cluster.helm("template", name, CHART, "--namespace", name))
    rights = yaml.safe_dump_all([one for one in rendered if one and one["kind"] in RIGHTS])
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("apply", "-f", "-", stdin=rights)
        yield name
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=rights)
        cluster.kubectl("delete", "namespace", name, "--wait=false")


def may(cluster: Cluster, release: str, part: str, verb: str, what: str, namespace: str = "") -> bool:
    """Whether a part may do this to GROUP/RESOURCE[/SUBRESOURCE]; in all namespaces unless one is given."""
    group, resource, *subresource = what.split("/")
    attributes = {"group": group, "resource": resource, "verb": verb, "namespace": namespace}
    attributes["subresource"] = "".join(subresource)
    user = f"system:serviceaccount:{release}:{release}-joulepath-{part}"
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": attributes},
    }
    answer = json.loads(cluster.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))
    return bool(answer["status"]["allowed"])


@pytest.mark.parametrize(
    ("part", "verb", "what"),
    [
        ("operator", "watch", "joulepath.dev/energyplans"),
        ("operator", "patch", "joulepath.dev/energyplans/status"),
        ("operator", "create", "joulepath.dev/jobplans"),
        ("operator", "patch", "joulepath.dev/energyprofiles"),
        ("operator", "list", "kubeflow.org/pytorchjobs"),
        ("operator", "create", "/events"),
        ("agent", "watch", "joulepath.dev/jobplans"),
        ("agent", "patch", "joulepath.dev/nodereports/status"),
        ("agent", "get", "/nodes"),
        ("webhook", "get", "kubeflow.org/pytorchjobs"),
        ("webhook", "get", "/namespaces"),
    ],
)
def test_accounts_may_do_their_work(cluster: Cluster, release: str, part: str, verb: str, what: str) -> None:
    assert may(cluster, release, part, verb, what)


@pytest.mark.parametrize("part", ["operator", "agent", "webhook"])
@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("patch", "joulepath.dev/energyplans"),
        ("delete", "joulepath.dev/energyplans"),
        ("patch", "kubeflow.org/pytorchjobs"),
        ("create", "/pods"),
        ("delete", "/pods"),
        ("create", "/pods/exec"),
        ("patch", "/nodes"),
        ("get", "/secrets"),
        ("create", "/serviceaccounts/token"),
        ("patch", "coordination.k8s.io/leases"),
    ],
)
def test_no_account_may_touch_what_is_others(cluster: Cluster, release: str, part: str, verb: str, what: str) -> None:
    assert not may(cluster, release, part, verb, what)


def test_operator_and_agents_write_each_their_own_side_of_the_contract(cluster: Cluster, release: str) -> None:
    assert not may(cluster, release, "operator", "update", "joulepath.dev/nodereports")
    assert not may(cluster, release, "operator", "update", "joulepath.dev/nodereports/status")
    assert not may(cluster, release, "agent", "create", "joulepath.dev/jobplans")
    assert not may(cluster, release, "agent", "patch", "joulepath.dev/energyplans/status")


def test_agents_hold_leases_in_their_own_namespace(cluster: Cluster, release: str) -> None:
    assert may(cluster, release, "agent", "create", "coordination.k8s.io/leases", release)
    assert not may(cluster, release, "agent", "create", "coordination.k8s.io/leases", "kube-node-lease")
