"""The operator as a process, against a real API server; pods are made by hand, and what nodes report is simulated.

It is one of these tests' own, with Kubernetes' controllers that collect garbage and empty namespaces, so that no other
operator is there. Each test has a namespace, a job and node reports of its own.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from uuid import uuid4

import pytest
import yaml
from kubernetes import client, config

from joulepath_crds import ANNOTATION, JobPlanSpec, NodeReportStatus
from joulepath_operator.control.api import Api as OperatorsApi
from joulepath_operator.control.stopping import Stopping
from joulepath_operator.facts.admission import read_stops
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.facts.observation import StoredPlan, TrainingJob
from joulepath_operator.injection.init_container import READER
from real_cluster import until
from simulated_nodes.place import Place, free_port, place
from simulated_nodes.release import pytorchjobs
from tests.operator.replicas import Replicas

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

DEFINITIONS = Path(__file__).parents[2] / "crds"
CONTROLLERS = ("garbage-collector-controller", "namespace-controller", "serviceaccount-controller")
DEADLINE_S = 120
_OURS = ("joulepath.dev", "v1alpha1")


class Api:
    """A namespace of the test's own, with a simulated job's nodes."""

    def __init__(self, place: Place, world: Any) -> None:
        self.kubectl, self.world = place.kubectl, world
        self.kubeconfig = place.kubeconfig("operator")
        self.namespace = f"operator-{uuid4().hex[:8]}"
        self.metrics_port = free_port()
        self._objects = client.CustomObjectsApi(config.new_client_from_config(str(self.kubeconfig)))

    def apply(self, body: dict[str, Any], *arguments: str) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", *arguments, stdin=json.dumps(body))

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        return next((one for one in self.items(kind) if one["metadata"]["name"] == name), None)

    def items(self, kind: str) -> list[dict[str, Any]]:
        group = ("kubeflow.org", "v1") if kind == "pytorchjobs" else _OURS
        found: list[dict[str, Any]] = self._objects.list_namespaced_custom_object(*group, self.namespace, kind)["items"]
        return found

    def status(self) -> dict[str, Any]:
        body = self.get("energyplans", "plan")
        assert body is not None
        return body.get("status") or {}

    def reason(self, kind: str) -> str | None:
        """The reason of a condition."""
        return next((one["reason"] for one in self.status().get("conditions", ()) if one["type"] == kind), None)

    def until(self, what: Callable[[], Any], *, training: bool = False) -> Any:
        """Waits for this to hold; if asked, the job trains on meanwhile."""
        deadline = time.monotonic() + DEADLINE_S
        while not (found := what()):
            assert time.monotonic() < deadline, f"{self.status()}"
            if training:
                self.train(24)
            time.sleep(0.8 if training else 0.1)  # the operator sees that before there is more
        return found

    def phase(self, phase: str, **options: Any) -> None:
        self.until(lambda: self.status().get("phase") == phase, **options)

    def create_energy_plan(self, **spec: Any) -> None:
        metadata = {"name": "plan", "namespace": self.namespace}
        body = {"apiVersion": "joulepath.dev/v1alpha1", "kind": "EnergyPlan", "metadata": metadata}
        self.apply({**body, "spec": {"job": {"name": "gpt3"}, **spec}})

    def create_job(self, *, pods: bool = True) -> None:
        """A job, and what the training operator and the scheduler would make of it: pods on nodes that nobody runs."""
        metadata = {"name": "gpt3", "namespace": self.namespace, "annotations": {ANNOTATION: "plan"}}
        container = {"name": "pytorch", "image": "none", "resources": {"limits": {"nvidia.com/gpu": 4}}}
        spec = {"pytorchReplicaSpecs": {"Worker": {"replicas": 2, "template": {"spec": {"containers": [container]}}}}}
        self.apply({"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "metadata": metadata, "spec": spec})
        job = self.get("pytorchjobs", "gpt3")
        assert job is not None
        uid = job["metadata"]["uid"]
        self.world.job = TrainingJob(uid, "gpt3", "plan", None)
        owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "gpt3", "uid": uid, "controller": True}
        for node in ("node-0", "node-1") if pods else ():
            labels = {"training.kubeflow.org/job-name": "gpt3"}
            pod = {"name": f"gpt3-on-{node}", "namespace": self.namespace, "labels": labels, "ownerReferences": [owner]}
            on = {"nodeName": self.node(node), "terminationGracePeriodSeconds": 0, "containers": [container]}
            self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "spec": on})

    def node(self, name: str) -> str:
        """As one of the world's nodes is called here."""
        return f"{self.namespace}-{name}"

    def train(self, iterations: int) -> None:
        """The nodes see the JobPlan that is there, train on, and report."""
        self.world.iteration += iterations
        plans = [JobPlanSpec.from_api(one["spec"]) for one in self.items("jobplans")]
        self.world.plans = {plan.hash: StoredPlan(plan.hash, plan, "") for plan in plans}
        pods = json.loads(self.kubectl("get", "pods", "-n", self.namespace, "-o", "json"))["items"]
        uids = {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in pods}
        for node in self.world.nodes():
            name = self.node(node.node)
            ranks = tuple(rank.model_copy(update={"pod_uid": uids[name]}) for rank in node.report.ranks)
            report = node.report.model_copy(update={"namespace": self.namespace, "ranks": ranks})
            body = {"apiVersion": "/".join(_OURS), "kind": "NodeReport", "metadata": {"name": name}}
            with suppress(client.ApiException):  # it is there
                self._objects.create_cluster_custom_object(*_OURS, "nodereports", body)
            status = NodeReportStatus(gpus=node.gpus, jobs=(report,)).to_api()
            self._objects.patch_cluster_custom_object_status(*_OURS, "nodereports", name, {"status": status})

    @contextmanager
    def operator(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "joulepath_operator", "run", "--metrics-host", "127.0.0.1"]
        command += ["--health-port", "0"]
        process = subprocess.Popen(
            [*command, "--metrics-port", str(self.metrics_port)], env={**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        )
        try:
            while not self.metrics():
                assert process.poll() is None
                time.sleep(0.1)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(60) == 0
            except subprocess.TimeoutExpired:
                process.kill()
                raise

    def metrics(self) -> str:
        """What Prometheus would be told; nothing while the operator starts."""
        with suppress(URLError), urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as answer:
            return str(answer.read().decode())
        return ""


@pytest.fixture(scope="module")
def own_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """The API server, which knows the kinds that the operator watches."""
    with place(tmp_path_factory.mktemp("place"), CONTROLLERS) as here:
        here.kubectl("apply", "--server-side", "-f", DEFINITIONS)
        here.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(pytorchjobs()))
        yield here


@pytest.fixture
def api(own_place: Place, new_world: Callable[..., Any]) -> Iterator[Api]:
    one = Api(own_place, new_world())
    one.kubectl("create", "namespace", one.namespace)
    one.kubectl("label", "namespace", one.namespace, "joulepath.dev/injection=volumes")
    until("its account", 60, lambda: one.kubectl("get", "serviceaccount", "default", "-n", one.namespace))
    yield one
    one.kubectl("delete", "namespace", one.namespace, "--wait=false", "--ignore-not-found")
    for node in ("node-0", "node-1"):
        one.kubectl("delete", "nodereport", one.node(node), "--ignore-not-found")


def test_the_story_through_a_real_api_server_with_the_operator_killed_in_mid_way(api: Api) -> None:
    with api.operator() as process:
        api.create_energy_plan()
        api.until(lambda: "no PyTorchJob gpt3" in api.status().get("message", ""))
        api.create_job()
        # With a release beside it, the pods are injected by its webhook.
        waiting = {"NotInjected", "PodsNotRunning", "NoAgent", "AgentNotReady", "WaitingForRanks"}
        api.until(lambda: api.reason("Injected") in waiting)
        api.phase("Profiling", training=True)
        api.until(lambda: api.items("jobplans")[0]["spec"].get("activateAt"), training=True)
        swept = api.items("jobplans")[0]["spec"]
        process.kill()  # in the middle of the sweep, with no chance to say goodbye
        process.wait()
        process.returncode = 0
    with api.operator() as process:
        api.train(4)
        time.sleep(3)
        assert api.items("jobplans")[0]["spec"] == swept
        api.until(lambda: api.items("energyprofiles"), training=True)
        api.phase("Active", training=True)
        api.until(lambda: api.items("jobplans")[0]["spec"].get("sparseFrom"), training=True)
        in_force = api.items("jobplans")[0]["spec"]
        api.until(lambda: api.status().get("measured", {}).get("pairs", 0) >= 8, training=True)
        process.kill()
        process.wait()
        process.returncode = 0
    with api.operator():
        before = api.status()
        api.until(lambda: 'phase="Active"} 1.0' in api.metrics())
        assert api.items("jobplans")[0]["spec"] == in_force
        assert api.status()["measured"] == before["measured"]
        labels = f'job="gpt3",name="plan",namespace="{api.namespace}",stat="mean"'
        assert f"joulepath_plan_savings_ratio{{{labels}}}" in api.metrics()
        job = api.get("pytorchjobs", "gpt3")
        assert job is not None
        assert job["metadata"]["annotations"].keys() == {ANNOTATION}
        for kind in ("energyplans", "jobplans", "energyprofiles", "pytorchjobs"):
            assert not any("finalizers" in one["metadata"] for one in api.items(kind))
            assert "kopf" not in json.dumps(api.items(kind))
        api.kubectl("-n", api.namespace, "delete", "pytorchjob", "gpt3")
        api.phase("Completed")
        api.until(lambda: not api.items("jobplans"))
        assert api.status()["savings"] == before["savings"]


def test_the_others_are_stretched_for_a_straggler_as_it_is_announced_and_as_it_is_found(api: Api) -> None:
    api.world = Replicas()

    def announce(what: str) -> None:
        api.kubectl("-n", api.namespace, "annotate", "pytorchjob", "gpt3", what)

    def spec() -> dict[str, Any]:
        (plan,) = api.items("jobplans")
        found: dict[str, Any] = plan["spec"]
        return found

    with api.operator():
        api.create_energy_plan()
        api.create_job()
        api.phase("Active", training=True)
        before = spec()["hash"]
        announce('joulepath.dev/straggler={"replica": 1, "slowdown": 1.2}')
        api.until(lambda: "stretched" in spec())
        assert api.status()["straggler"]["reason"] == "Announced"
        assert spec()["stretched"]["replicas"] == [0]
        api.phase("Active", training=True)
        announce("joulepath.dev/straggler-")
        api.until(lambda: spec()["hash"] == before)
        api.until(lambda: "straggler" not in api.status())
        api.phase("Active", training=True)
        api.world.told = dict.fromkeys(range(8, 16), 1.2)
        api.train(1)
        api.until(lambda: "stretched" in spec())
        assert api.status()["straggler"]["reason"] == "Heat"
        assert 'joulepath_straggler_slowdown_ratio{job="gpt3"' in api.metrics()
        announce("joulepath.dev/straggler=soon")
        api.until(lambda: api.reason("Degraded") == "StragglerUnreadable")
        events = api.kubectl("-n", api.namespace, "get", "events", "-o", "jsonpath={.items[*].reason}")
        assert {"StragglerFound", "StragglerOver", "StragglerUnreadable"} <= set(events.split())


def test_a_deleted_energy_plan_takes_its_job_plan_along_without_an_operator(api: Api) -> None:
    with api.operator():
        api.create_energy_plan()
        api.create_job()
        api.until(lambda: api.items("jobplans"), training=True)
    api.kubectl("-n", api.namespace, "delete", "energyplan", "plan", "--timeout=5s")
    deadline = time.monotonic() + DEADLINE_S
    while api.items("jobplans"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_job_plan_that_outlives_its_energy_plan_is_deleted(api: Api) -> None:
    """The first one was orphaned; the EnergyPlan of the other one comes back by its name."""
    with api.operator():
        api.create_energy_plan()
        api.create_job()
        api.until(lambda: api.items("jobplans"), training=True)
    api.kubectl("-n", api.namespace, "delete", "energyplan", "plan", "--cascade=orphan", "--timeout=20s")
    (orphan,) = api.items("jobplans")
    assert not orphan["metadata"].get("ownerReferences")
    with api.operator():
        api.until(lambda: not api.items("jobplans"))
        api.create_energy_plan()
        api.until(lambda: api.items("jobplans"), training=True)
    api.kubectl("-n", api.namespace, "delete", "energyplan", "plan", "--cascade=orphan", "--timeout=20s")
    (orphan,) = api.items("jobplans")
    api.create_energy_plan()
    with api.operator():
        api.until(lambda: orphan["metadata"]["uid"] not in {one["metadata"]["uid"] for one in api.items("jobplans")})
        api.until(lambda: api.items("jobplans"), training=True)


def test_a_job_that_was_there_first_gets_its_plan_and_nothing_of_ours_keeps_its_namespace_from_going(api: Api) -> None:
    api.create_job()
    with api.operator() as process:
        api.create_energy_plan()
        api.until(lambda: api.items("jobplans"), training=True)
        assert f'namespace="{api.namespace}"' in api.metrics()
        api.kubectl("delete", "namespace", api.namespace, "--timeout=60s")
        deadline = time.monotonic() + DEADLINE_S
        while f'namespace="{api.namespace}"' in api.metrics():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert process.poll() is None


def test_an_operator_with_an_older_cluster_role_waits_for_its_rights_and_says_which(api: Api, own_place: Place) -> None:
    """It may do all that one did that knew no EnergyPolicy."""
    name, ours = api.namespace, ["energyplans", "energyplans/status", "energyprofiles", "jobplans"]
    ours += ["nodereports", "nodestates", "nodemeasurements"]

    def allow(*more: str) -> None:
        rules = [
            {"apiGroups": ["joulepath.dev"], "resources": [*ours, *more], "verbs": ["*"]},
            {"apiGroups": ["", "batch", "kubeflow.org", "trainer.kubeflow.org", "jobset.x-k8s.io"]}
            | {"resources": ["*"], "verbs": ["*"]},
        ]
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}}
        api.apply({**role, "rules": rules})

    allow()
    api.kubectl("-n", name, "create", "serviceaccount", "older")
    api.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--serviceaccount={name}:older")
    api.kubeconfig = own_place.kubeconfig(name, api.kubectl("-n", name, "create", "token", "older").strip())
    try:
        with api.operator() as process:
            api.create_energy_plan()
            api.create_job()
            api.until(lambda: api.status().get("progress") == "MayNotRead", training=True)
            assert "may not list and watch energypolicies of joulepath.dev" in api.status()["message"]
            assert not api.items("jobplans")
            assert process.poll() is None
            allow("energypolicies")
            assert process.wait(DEADLINE_S) == 0
        with api.operator():
            api.until(lambda: api.items("jobplans"), training=True)
    finally:
        api.kubectl("delete", "clusterrole,clusterrolebinding", name)


def test_what_the_schema_lets_through_is_refused_in_the_status(api: Api) -> None:
    with api.operator():
        api.create_energy_plan(measurement={"pairs": 500})
        api.phase("Refused")
        assert "spec.measurement.pairs is 500" in api.status()["message"]


def test_a_namespace_that_enforces_restricted_is_told(api: Api) -> None:
    api.kubectl("label", "namespace", api.namespace, "pod-security.kubernetes.io/enforce=restricted")
    with api.operator():
        api.create_energy_plan()
        api.create_job(pods=False)  # they are refused there
        api.until(lambda: "level restricted" in api.status().get("message", ""))


def test_a_namespace_without_the_label_is_told_the_command_and_that_pods_were_there_before_it(api: Api) -> None:
    api.kubectl("label", "namespace", api.namespace, "joulepath.dev/injection-")
    with api.operator():
        api.create_energy_plan()
        api.create_job()
        api.until(lambda: api.reason("Injected") == "NamespaceNotLabelled")
        command = f"kubectl label namespace {api.namespace} joulepath.dev/injection=volumes"
        assert command in api.status()["message"]
        api.until(lambda: "2 of 2 pods" in api.status()["message"])
        chosen = ("--namespace", api.namespace, "--output", "jsonpath={.items[0].metadata.creationTimestamp}")
        created = api.kubectl("get", "pods", *chosen)
        api.until(lambda: datetime.now(UTC).isoformat() > created.replace("Z", ".999"))  # all times are whole seconds
        api.kubectl(*command.split()[1:])
        api.until(lambda: api.reason("Injected") == "PodsPredateLabel")


def test_a_pod_that_our_init_container_holds_up_stops_injection_until_it_has_passed(api: Api) -> None:
    """By the states of a pod as a kubelet would write them, and a ConfigMap as the chart makes it."""
    kubectl, where = api.kubectl, ("-n", api.namespace)
    kubectl("create", "configmap", "stops", *where)
    kubectl("create", "serviceaccount", "trains", *where)
    metadata = {
        "name": "held-up",
        "labels": {"training.kubeflow.org/job-name": "gpt3"},
        "annotations": {INJECTED_ANNOTATION: "pytorch"},
    }
    spec = {
        "serviceAccountName": "trains",
        "schedulerName": "nobody",
        "initContainers": [{"name": READER, "image": "none"}],
        "containers": [{"name": "pytorch", "image": "none"}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    kubectl("create", "-f", "-", *where, stdin=json.dumps(pod))

    def is_now(phase: str, state: dict[str, Any], restarts: int) -> None:
        told = {
            "name": READER,
            "image": "none",
            "imageID": "",
            "ready": False,
            "restartCount": restarts,
            "state": state,
        }
        patch = json.dumps({"status": {"phase": phase, "initContainerStatuses": [told]}})
        kubectl("patch", "pod", "held-up", *where, "--subresource=status", "--type=merge", "-p", patch)

    connection = config.new_client_from_config(str(api.kubeconfig))
    stopping = Stopping(OperatorsApi(connection, stops=(api.namespace, "stops")))
    assert api.namespace not in stopping.look("2026-01-01T00:00:00Z")
    is_now("Pending", {"waiting": {"reason": "CrashLoopBackOff"}}, 3)
    api.until(lambda: api.namespace in stopping.look("2026-01-01T00:01:00Z"))
    assert stopping.known[api.namespace].why == "pod held-up: CrashLoopBackOff"
    is_now("Running", {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:02:00Z"}}, 4)
    api.until(lambda: api.namespace in stopping.look("2026-01-01T00:03:00Z"))
    assert api.namespace not in stopping.holding()
    written = json.loads(kubectl("get", "configmap", "stops", *where, "-o", "json"))["data"]
    assert read_stops(written)[api.namespace] == stopping.known[api.namespace]
