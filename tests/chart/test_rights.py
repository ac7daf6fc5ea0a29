"""What the accounts may do, asked of a real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from real_cluster import Cluster, CommandError, until

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts/joulepath"
RIGHTS = {
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "CustomResourceDefinition",
}


@dataclass(frozen=True, slots=True)
class Release:
    """Accounts, rights and kinds as the chart makes them, under a name and an API group of the test's own."""

    cluster: Cluster
    name: str
    group: str

    def account(self, part: str) -> str:
        """Name of the ServiceAccount of a part."""
        return f"{self.name}-joulepath-{part}"

    def may(self, part: str, verb: str, what: str, namespace: str = "") -> bool:
        """Whether a part may do this to GROUP/RESOURCE[/SUBRESOURCE]; in all namespaces unless one is given."""
        group, resource, *subresource = what.split("/")
        attributes = {
            "group": self.group if group == "joulepath.dev" else group,
            "resource": resource,
            "subresource": "".join(subresource),
            "verb": verb,
            "namespace": namespace,
        }
        user = f"system:serviceaccount:{self.name}:{self.account(part)}"
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": user, "resourceAttributes": attributes},
        }
        answer = json.loads(self.cluster.kubectl("create", "-o", "json", "-f", "-", stdin=json.dumps(review)))
        return bool(answer["status"]["allowed"])


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    name = f"rights-{uuid4().hex[:6]}"
    group = f"{name}.joulepath.test"
    rendered = cluster.helm("template", name, CHART, "--namespace", name).replace("joulepath.dev", group)
    objects = yaml.safe_dump_all([one for one in yaml.safe_load_all(rendered) if one and one["kind"] in RIGHTS])
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=objects)
        yield Release(cluster, name, group)
    finally:
        cluster.kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=objects)
        cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize(
    ("part", "verb", "what"),
    [
        ("operator", "watch", "joulepath.dev/energyplans"),
        ("operator", "update", "joulepath.dev/energyplans/status"),
        ("operator", "create", "joulepath.dev/jobplans"),
        ("operator", "update", "joulepath.dev/energyprofiles"),
        ("operator", "list", "kubeflow.org/pytorchjobs"),
        ("operator", "delete", "joulepath.dev/jobplans"),
        ("operator", "create", "/events"),
        ("agent", "watch", "joulepath.dev/jobplans"),
        ("agent", "patch", "joulepath.dev/nodereports/status"),
        ("agent", "get", "/nodes"),
        ("webhook", "get", "kubeflow.org/pytorchjobs"),
        ("webhook", "get", "/namespaces"),
    ],
)
def test_accounts_may_do_their_work(release: Release, part: str, verb: str, what: str) -> None:
    assert release.may(part, verb, what)


@pytest.mark.parametrize("part", ["operator", "agent", "webhook"])
@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("patch", "joulepath.dev/energyplans"),
        ("delete", "joulepath.dev/energyprofiles"),
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
def test_no_account_may_touch_what_is_others(release: Release, part: str, verb: str, what: str) -> None:
    assert not release.may(part, verb, what)


def test_operator_and_agents_write_each_their_own_side_of_the_contract(release: Release) -> None:
    assert not release.may("operator", "update", "joulepath.dev/nodereports")
    assert not release.may("operator", "update", "joulepath.dev/nodereports/status")
    assert not release.may("agent", "create", "joulepath.dev/jobplans")
    assert not release.may("agent", "patch", "joulepath.dev/energyplans/status")


def test_agents_hold_leases_in_their_own_namespace(release: Release) -> None:
    assert release.may("agent", "create", "coordination.k8s.io/leases", release.name)
    assert not release.may("agent", "create", "coordination.k8s.io/leases", "kube-node-lease")


def test_an_agent_writes_the_report_of_its_own_node_and_no_other(release: Release) -> None:
    cluster = release.cluster
    nodes = ("--bound-object-kind=Node", f"--bound-object-name={cluster.nodes[0].name}")
    token = cluster.kubectl("create", "token", release.account("agent"), "-n", release.name, *nodes).strip()

    def create(name: str) -> None:
        report = {"apiVersion": f"{release.group}/v1alpha1", "kind": "NodeReport", "metadata": {"name": name}}
        cluster.kubectl(*_with_token(cluster, token), "create", "-f", "-", stdin=json.dumps(report))

    def refused() -> bool:
        with pytest.raises(CommandError) as said:
            create("not-its-node")
        return "an agent writes the report of its own node" in str(said.value)

    until("the policy is in force", 30, refused)
    create(cluster.nodes[0].name)


def _with_token(cluster: Cluster, token: str) -> list[str]:
    server = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    return ["--kubeconfig=/dev/null", f"--token={token}", f"--server={server}", "--insecure-skip-tls-verify"]
