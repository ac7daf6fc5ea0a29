"""What the accounts may do, asked of a real API server."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from joulepath_agent.cluster.api import NodeApi
from joulepath_agent.cluster.heartbeat import Heartbeat
from joulepath_agent.cluster.objects import ApiServer
from joulepath_cli.commands.preflight import cluster as preflight
from joulepath_cli.commands.preflight.facts import Unread
from joulepath_crds.serving.guard import Guard
from joulepath_operator.control.api import Api
from joulepath_operator.facts.admission import Stop
from real_cluster import Cluster, until
from tests.agent.cluster.real_api import api_server

pytestmark = [
    pytest.mark.cluster,
    # The lab's API server is trusted by its address here, not by a certificate.
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]

CHART = Path(__file__).parents[2] / "charts/joulepath"
TOLD = "NodeReport", "NodeState", "NodeMeasurement"
"""Kinds that agents write."""
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
    admin: client.ApiClient

    def account(self, part: str) -> str:
        """Name of the ServiceAccount of a part."""
        return f"{self.name}-joulepath-{part}"

    def may(self, part: str, verb: str, what: str, namespace: str = "", name: str = "") -> bool:
        """Whether a part may do this to GROUP/RESOURCE[/SUBRESOURCE]; in all namespaces unless one is given."""
        group, resource, *subresource = what.split("/")
        attributes = {
            "group": self.group if group == "joulepath.dev" else group,
            "resource": resource,
            "subresource": "".join(subresource),
            "verb": verb,
            "namespace": namespace,
            "name": name,
        }
        user = f"system:serviceaccount:{self.name}:{self.account(part)}"
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = client.AuthorizationV1Api(self.admin).create_subject_access_review(review)
        return bool(answer.status.allowed)


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[Release]:
    name = f"rights-{uuid4().hex[:6]}"
    group = f"{name}.joulepath.test"
    options = ("--namespace", name, "--set", "metrics.secure=true,injection=volumes")
    rendered = cluster.helm("template", name, CHART, *options).replace("joulepath.dev", group)
    objects = yaml.safe_dump_all([one for one in yaml.safe_load_all(rendered) if one and one["kind"] in RIGHTS])
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("apply", "--server-side", "-f", "-", stdin=objects)
        yield Release(cluster, name, group, config.new_client_from_config(str(cluster.kubeconfig)))
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
        ("operator", "watch", "trainer.kubeflow.org/trainjobs"),
        ("operator", "watch", "jobset.x-k8s.io/jobsets"),
        ("operator", "watch", "batch/jobs"),
        ("operator", "delete", "joulepath.dev/jobplans"),
        ("operator", "create", "/events"),
        ("operator", "list", "/events"),
        ("operator", "watch", "joulepath.dev/energypolicies"),
        ("agent", "watch", "joulepath.dev/jobplans"),
        ("agent", "list", "joulepath.dev/energypolicies"),
        ("agent", "watch", "joulepath.dev/energypolicies"),
        *(("agent", "patch", f"joulepath.dev/{kind.lower()}s/status") for kind in TOLD),
        *(("operator", "watch", f"joulepath.dev/{kind.lower()}s") for kind in TOLD),
        ("agent", "get", "/nodes"),
        ("webhook", "get", "kubeflow.org/pytorchjobs"),
        ("webhook", "get", "trainer.kubeflow.org/trainjobs"),
        ("agent", "get", "jobset.x-k8s.io/jobsets"),
        ("webhook", "get", "/namespaces"),
        ("preflight", "list", "/nodes"),
        ("preflight", "list", "joulepath.dev/nodereports"),
    ],
)
def test_accounts_may_do_their_work(release: Release, part: str, verb: str, what: str) -> None:
    assert release.may(part, verb, what)


@pytest.mark.parametrize("part", ["operator", "agent", "webhook", "preflight"])
@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("patch", "joulepath.dev/energyplans"),
        ("delete", "joulepath.dev/energyprofiles"),
        ("delete", "joulepath.dev/energyplans"),
        ("patch", "joulepath.dev/energypolicies"),
        ("create", "joulepath.dev/energypolicies"),
        ("patch", "kubeflow.org/pytorchjobs"),
        ("patch", "trainer.kubeflow.org/trainjobs"),
        ("patch", "batch/jobs"),
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


@pytest.mark.parametrize("role", ["admin", "edit", "view"])
def test_roles_of_kubernetes_have_our_kinds_in_them_and_none_has_the_administrators_word(
    release: Release, role: str
) -> None:
    """By a binding in a namespace, and by one for the whole cluster."""
    namespace, user = release.name, f"{release.name}-{role}"

    def may(verb: str, plural: str, where: str = namespace) -> bool:
        attributes = {"group": release.group, "resource": plural, "verb": verb, "namespace": where}
        review = {"spec": {"user": user, "resourceAttributes": attributes}}
        answer = client.AuthorizationV1Api(release.admin).create_subject_access_review(review)
        return bool(answer.status.allowed)

    kubectl = release.cluster.kubectl
    kubectl("create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}", "-n", namespace)
    until("the role has our kinds", 30, lambda: may("watch", "energyplans"))
    until("the role may do what it may", 30, lambda: may("create", "energyplans") == (role != "view"))
    assert may("patch", "energyprofiles") == (role != "view")
    assert may("get", "jobplans")
    assert not may("create", "jobplans")
    assert not may("create", "energyplans", "another")
    kubectl("create", "clusterrolebinding", user, f"--clusterrole={role}", f"--user={user}")
    try:
        for kind in TOLD:
            until("reports may be seen", 30, partial(may, "list", f"{kind.lower()}s", ""))
        assert may("get", "energypolicies", "")
        for verb in ("create", "patch", "update", "delete"):
            assert not may(verb, "energypolicies", "")
            assert not may(verb, "nodereports", "")
    finally:
        kubectl("delete", "clusterrolebinding", user)


def test_operator_and_agents_write_each_their_own_side_of_the_contract(release: Release) -> None:
    for kind in TOLD:
        assert not release.may("operator", "update", f"joulepath.dev/{kind.lower()}s")
        assert not release.may("operator", "update", f"joulepath.dev/{kind.lower()}s/status")
    assert not release.may("agent", "create", "joulepath.dev/jobplans")
    assert not release.may("agent", "patch", "joulepath.dev/energyplans/status")


def test_agents_hold_leases_in_their_own_namespace(release: Release) -> None:
    assert release.may("agent", "create", "coordination.k8s.io/leases", release.name)
    assert not release.may("agent", "create", "coordination.k8s.io/leases", "kube-node-lease")


def test_where_injection_is_stopped_the_operator_writes_and_the_webhook_reads(release: Release) -> None:
    """By their own code, with the tokens that pods of theirs have."""
    stops = (release.name, f"{release.name}-joulepath-injection")
    release.cluster.kubectl("create", "configmap", stops[1], "-n", release.name)
    stop = Stop("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z", 600, "pod p: StartError")
    operator, webhook = (Api(_api(release, part), stops=stops) for part in ("operator", "webhook"))
    assert webhook.stops() == {}
    operator.write_stops({"team": stop, "another": stop})
    operator.write_stops({"team": replace(stop, over_at="2026-01-01T00:20:00Z"), "another": None, "never": None})
    assert operator.stops() == webhook.stops() == {"team": replace(stop, over_at="2026-01-01T00:20:00Z")}
    with pytest.raises(ApiException, match="403"):
        webhook.write_stops({"team": None})
    for part in ("operator", "webhook", "agent"):
        for verb in ("get", "patch", "update", "create", "delete"):
            assert not release.may(part, verb, "/configmaps", release.name, "another"), (part, verb)


@pytest.mark.parametrize("verb", ["get", "list", "watch", "update", "delete"])
@pytest.mark.parametrize("what", [*(f"joulepath.dev/{kind.lower()}s" for kind in TOLD), "coordination.k8s.io/leases"])
def test_agents_read_no_reports_or_leases_and_delete_none(release: Release, verb: str, what: str) -> None:
    assert not release.may("agent", verb, what, release.name)


@pytest.mark.parametrize("what", ["/pods", "/nodes", "joulepath.dev/jobplans"])
def test_agents_read_one_pod_or_node_at_a_time_and_plans_only_as_a_list(release: Release, what: str) -> None:
    assert release.may("agent", "get", what) != release.may("agent", "list", what)


def test_an_agent_writes_what_it_tells_and_the_lease_of_its_own_node_and_no_other(release: Release) -> None:
    """By the agent's own code, with the token that a pod of its has."""
    own, other = (node.name for node in release.cluster.nodes[:2])
    of_own, of_other = _agent(release, own), _agent(release, other)

    def beat(api: ApiServer, node: str) -> None:
        Heartbeat(api, node, release.name).beat(0.0)

    def change(api: ApiServer, node: str, kind: str) -> None:
        api.patch({"status": {}}, "apis", release.group, "v1alpha1", f"{kind.lower()}s", node, "status")

    def tell(api: ApiServer, node: str, kind: str) -> None:
        body = {"apiVersion": f"{release.group}/v1alpha1", "kind": kind, "metadata": {"name": node}}
        api.create(body, "apis", release.group, "v1alpha1", f"{kind.lower()}s")
        change(api, node, kind)

    def refused(write: Callable[[ApiServer, str], None], api: ApiServer, node: str) -> bool:
        with pytest.raises(OSError, match=r"403|422") as said:
            write(api, node)
        return "an agent writes the report and the Lease of its own node" in str(said.value)

    tells: list[Callable[[ApiServer, str], None]] = [partial(tell, kind=kind) for kind in TOLD]
    changes: list[Callable[[ApiServer, str], None]] = [partial(change, kind=kind) for kind in TOLD]
    until("the policy is in force", 30, lambda: refused(tells[0], of_own, "not-its-node"))
    for write in (*tells, beat):
        assert refused(write, of_own, other)
        write(of_own, own)
    beat(of_own, own)
    for write in (*changes, beat):
        assert refused(write, of_other, own)


def test_the_account_of_helm_test_may_read_all_that_preflight_asks_for(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = release.cluster
    token = cluster.kubectl("create", "token", release.account("preflight"), "-n", release.name).strip()
    kubeconfig = yaml.safe_load(cluster.kubeconfig.read_text())
    kubeconfig["users"] = [{**one, "user": {"token": token}} for one in kubeconfig["users"]]
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    read = preflight.read(release.name)
    assert not isinstance(read.nodes, Unread)
    assert not {type(one) for one in (read.version, read.slices, read.namespaces, read.pods, *read.kinds.values())} & {
        Unread
    }
    # Its right to NodeReports is to those of this test's own group.
    assert isinstance(preflight.read("kube-system").pods, Unread), "elsewhere it sees no pod"


@pytest.mark.parametrize("part", ["operator", "agent"])
def test_operator_and_agent_let_read_metrics_whom_the_api_server_lets(
    release: Release, part: str, tmp_path: Path
) -> None:
    cluster = release.cluster
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=metrics"]
    command += ["-keyout", str(tmp_path / "tls.key"), "-out", str(tmp_path / "tls.crt")]
    subprocess.run(command, check=True, capture_output=True)
    for account in ("prometheus", "stranger"):
        cluster.kubectl("create", "serviceaccount", f"{account}-{part}", "-n", release.name)
    reader = f"{release.name}-{part}-prometheus"
    account = f"--serviceaccount={release.name}:prometheus-{part}"
    role = f"--clusterrole={release.name}-joulepath-metrics-reader"
    cluster.kubectl("create", "clusterrolebinding", reader, role, account)

    def token(account: str) -> str:
        return cluster.kubectl("create", "token", account, "-n", release.name).strip()

    try:
        review = Api(_api(release, part)).review if part == "operator" else _node_api(release).review
        good = token(f"prometheus-{part}")

        def allowed() -> bool:
            return Guard(tmp_path, review).judge(good) is HTTPStatus.OK

        until("the binding is in force", 30, allowed)
        guard = Guard(tmp_path, review)
        assert guard.judge(token(f"stranger-{part}")) is HTTPStatus.FORBIDDEN
        assert guard.judge("no token") is HTTPStatus.UNAUTHORIZED
    finally:
        cluster.kubectl("delete", "clusterrolebinding", reader)


def _node_api(release: Release) -> NodeApi:
    return NodeApi(
        api_server(release.cluster.kubeconfig, _token(release, "agent")), release.cluster.nodes[0].name, release.name
    )


def _agent(release: Release, node: str) -> ApiServer:
    """The API as the agent on a node has it."""
    token = _token(release, "agent", "--bound-object-kind=Node", f"--bound-object-name={node}")
    return api_server(release.cluster.kubeconfig, token)


def _token(release: Release, part: str, *bound: str) -> str:
    return release.cluster.kubectl("create", "token", release.account(part), "-n", release.name, *bound).strip()


def _api(release: Release, part: str) -> client.ApiClient:
    cluster = release.cluster
    settings = client.Configuration()
    settings.host = cluster.kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    settings.verify_ssl = False
    settings.api_key = {"authorization": f"Bearer {_token(release, part)}"}
    return client.ApiClient(settings)
