"""The real cluster is one: pods, DNS, the API through its Service, admission, the training operator; and only here."""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from real_cluster import Cluster, CommandError, images, until, up
from real_cluster.layout import API_ADDRESS, API_PORT, API_SERVICE_ADDRESS, CLUSTER_NETWORK

pytestmark = pytest.mark.cluster

_HERE = "198.51.100.1"
_BUSYBOX = "localhost/joulepath/busybox:1"
_PROBE = "localhost/joulepath/probe:test"
_SPIN = """
now() { read -r up rest </proc/uptime; now=${up%.*}; }
now; end=$((now + 4))
while now; [ $now -lt $end ]; do :; done
read -r stat </proc/$$/stat; echo "$stat"
"""
_DOCKERFILE = Path(__file__).parent / "probe" / "Dockerfile"


def _pod(node: str) -> dict[str, Any]:
    containers = [
        {"name": "busybox", "image": _BUSYBOX, "command": ["sleep", "3600"]},
        {"name": "python", "image": _PROBE, "imagePullPolicy": "Never"},
    ]
    spec = {"nodeName": node, "containers": containers, "terminationGracePeriodSeconds": 0}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"probe-{node}"}, "spec": spec}


@pytest.fixture(scope="module")
def namespace(cluster: Cluster, worker_id: str) -> Iterator[str]:
    """A namespace with a pod on each node, of busybox and of an image built from a Dockerfile."""
    name = f"cluster-room-{worker_id}"
    cluster.kubectl("delete", "namespace", name, "--ignore-not-found")
    cluster.kubectl("create", "namespace", name)
    cluster.load(images.build(_DOCKERFILE, "probe", _PROBE))
    account = ("get", "serviceaccount", "default", "--namespace", name)
    until("the ServiceAccount", 10, lambda: cluster.kubectl(*account))
    pods = yaml.safe_dump_all([_pod(node.name) for node in cluster.nodes])
    cluster.kubectl("apply", "--namespace", name, "-f", "-", stdin=pods)
    cluster.kubectl("wait", "--namespace", name, "--for=condition=Ready", "pod", "--all", "--timeout=60s")
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _in_pod(cluster: Cluster, namespace: str, node: str, script: str) -> str:
    return cluster.kubectl("exec", "--namespace", namespace, f"probe-{node}", "-c", "busybox", "--", "sh", "-c", script)


def test_two_nodes_of_kubernetes_1_37_are_ready(cluster: Cluster) -> None:
    nodes = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    assert len(nodes) >= 2
    assert {node["status"]["nodeInfo"]["kubeletVersion"].rpartition(".")[0] for node in nodes} == {"v1.37"}


def test_pods_on_every_node_resolve_services(cluster: Cluster, namespace: str) -> None:
    for node in cluster.nodes:
        answer = _in_pod(cluster, namespace, node.name, "nslookup kubernetes.default.svc.cluster.local")
        assert "Address: 10.214.0.1" in answer


def test_pods_reach_the_api_through_its_service_with_their_token(cluster: Cluster, namespace: str) -> None:
    for node in cluster.nodes:
        command = ("/opt/venv/bin/python", "/app/ask_api.py")
        answer = cluster.kubectl("exec", "--namespace", namespace, f"probe-{node.name}", "-c", "python", "--", *command)
        assert json.loads(answer)["minor"] == "37"


def test_pods_of_both_nodes_reach_each_other(cluster: Cluster, namespace: str) -> None:
    first, second = cluster.nodes[:2]
    address = cluster.kubectl(
        "get", "pod", "--namespace", namespace, f"probe-{second.name}", "-o", "jsonpath={.status.podIP}"
    )
    assert "1 packets received" in _in_pod(cluster, namespace, first.name, f"ping -c 1 -W 2 {address}")


def test_pod_security_admission_is_in_force(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    pod = _pod(cluster.nodes[0].name)
    pod["metadata"]["name"] = "refused"
    with pytest.raises(CommandError, match="violates PodSecurity"):
        cluster.kubectl("create", "--namespace", namespace, "-f", "-", stdin=yaml.safe_dump(pod))
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce-")


def test_the_training_operator_refuses_a_job_without_a_container_named_pytorch(cluster: Cluster) -> None:
    template = {"spec": {"containers": [{"name": "other", "image": _BUSYBOX}]}}
    job = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "wrong"},
        "spec": {"pytorchReplicaSpecs": {"Master": {"replicas": 1, "template": template}}},
    }
    with pytest.raises(CommandError, match=r"validator\.pytorchjob"):
        cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(job))


def test_every_node_has_its_own_files_and_its_own_pod_resources(cluster: Cluster) -> None:
    for node in cluster.nodes:
        node.nsenter("sh", "-c", f"echo {node.name} >/run/joulepath/whoami")
        node.nsenter("test", "-S", "/var/lib/kubelet/pod-resources/kubelet.sock")
    for node in cluster.nodes:
        assert node.nsenter("cat", "/run/joulepath/whoami") == f"{node.name}\n"
        node.nsenter("rm", "/run/joulepath/whoami")
    assert not Path("/run/joulepath/whoami").exists()


def test_up_on_a_running_cluster_starts_nothing(cluster: Cluster) -> None:
    control_plane = ["etcd", *(f"kube-{part}" for part in ("apiserver", "controller-manager", "scheduler", "proxy"))]
    on_nodes = [f"{node.name}.{part}" for node in cluster.nodes for part in ("namespace", "containerd", "kubelet")]

    def pids() -> dict[str, int | None]:
        return {name: cluster.processes.pid(name) for name in (*control_plane, *on_nodes)}

    before = pids()
    joined = up()
    assert all(before.values())
    assert pids() == before
    assert joined.kubeconfig == cluster.kubeconfig


def test_a_daemon_runs_in_its_node_and_is_started_anew_only_if_its_command_changes(cluster: Cluster) -> None:
    node = cluster.nodes[-1]
    script = "echo $0 >/run/virtual-gpus/daemon; exec sleep infinity"
    try:
        assert node.start("probe", ["sh", "-c", script, "first"])
        first = node.pid("probe")
        assert not node.start("probe", ["sh", "-c", script, "first"])
        assert node.pid("probe") == first
        assert node.start("probe", ["sh", "-c", script, "second"])
        assert node.pid("probe") != first
        until("the daemon", 5, lambda: node.nsenter("cat", "/run/virtual-gpus/daemon") == "second\n")
    finally:
        node.stop("probe")
    assert node.pid("probe") is None
    node.nsenter("rm", "/run/virtual-gpus/daemon")


@pytest.fixture
def neighbour(cluster: Cluster) -> Iterator[list[str]]:
    """The command prefix of a "machine" beside this one that sends what is for the cluster here."""
    with subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) as holder:
        inside = ["nsenter", "--net", "--target", str(holder.pid)]
        try:
            own = Path("/proc/self/ns/net").readlink()
            until("the other network", 5, lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != own)
            link = [
                "ip",
                "link",
                "add",
                "neighbour0",
                "type",
                "veth",
                "peer",
                "name",
                "here0",
                "netns",
                str(holder.pid),
            ]
            for command in (
                link,
                ["ip", "address", "add", f"{_HERE}/30", "dev", "neighbour0"],
                ["ip", "link", "set", "neighbour0", "up"],
                [*inside, "ip", "address", "add", "198.51.100.2/30", "dev", "here0"],
                [*inside, "ip", "link", "set", "here0", "up"],
                [*inside, "ip", "route", "add", "10.0.0.0/8", "via", _HERE],
            ):
                subprocess.run(command, check=True)
            yield inside
        finally:
            subprocess.run(["ip", "link", "delete", "neighbour0"], check=False)
            holder.kill()


def test_a_neighbour_with_a_route_to_the_cluster_gets_no_answer(cluster: Cluster, neighbour: list[str]) -> None:
    def reaches(address: str, port: int) -> bool:
        script = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2)"
        command = [*neighbour, sys.executable, "-c", script, address, str(port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    with socket.create_server((_HERE, 0)) as server:
        assert reaches(_HERE, server.getsockname()[1]), "the link itself must work"
    assert not reaches(API_ADDRESS, API_PORT)
    assert not reaches(cluster.nodes[0].address, 10250)
    assert not reaches(API_SERVICE_ADDRESS, 443)


def test_nothing_of_the_cluster_listens_on_an_address_that_others_can_reach(cluster: Cluster) -> None:
    pids = {str(cluster.processes.pid(name)) for name in cluster.processes.names()}
    listing = subprocess.run(["ss", "-Hltunp"], capture_output=True, text=True, check=True).stdout
    lines = [line for line in listing.splitlines() if any(f"pid={pid}," in line for pid in pids)]
    addresses = [line.split()[4].rpartition(":")[0] for line in lines]
    own = ipaddress.ip_network(CLUSTER_NETWORK)
    assert len(addresses) >= 8
    for address in addresses:
        parsed = ipaddress.ip_address(address.strip("[]"))
        assert parsed.is_loopback or parsed in own, f"listens on {address}"


def _ticks(stat: str) -> int:
    """What a process has had of a core, from its /proc/PID/stat."""
    user, system = stat.rpartition(") ")[2].split()[11:13]
    return int(user) + int(system)


def test_what_runs_in_the_cluster_goes_before_other_programs_of_the_machine(cluster: Cluster, namespace: str) -> None:
    node, spin = cluster.node("node0"), ["taskset", "1", "sh", "-c", _SPIN]
    node.start("spin", spin)
    with subprocess.Popen(spin, stdout=subprocess.PIPE, text=True, start_new_session=True) as other:
        pod = cluster.kubectl("exec", "--namespace", namespace, "probe-node0", "-c", "busybox", "--", *spin)
        output, _ = other.communicate()
    until("the daemon's end", 10, lambda: node.pid("spin") is None)
    daemon = node.log("spin").read_text().splitlines()[-1]
    node.stop("spin")
    assert _ticks(daemon) > 2 * _ticks(output)
    assert _ticks(pod) > 2 * _ticks(output)
