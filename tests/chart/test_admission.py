"""Which pods the API server asks the webhook about, by the chart's configuration of it: asked of a real API server."""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonpatch
import pytest
import yaml

from joulepath_operator.injection.patch import Outcome, inject
from real_cluster import Cluster, until

pytestmark = pytest.mark.cluster

CHART = Path(__file__).parents[2] / "charts/joulepath"
LABEL = "joulepath.dev/injection"
JOB = {"training.kubeflow.org/job-name": "gpt3"}


class Server(ThreadingHTTPServer):
    """Allows every pod, and keeps the names of those that it was asked about."""

    daemon_threads = True

    def __init__(self, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate, key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(review["request"]["object"]["metadata"]["name"])
        answer = json.dumps({**review, "response": {"uid": review["request"]["uid"], "allowed": True}}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Door:
    """Namespaces with and without the label, and the chart's webhook for them, which a server of the test answers."""

    cluster: Cluster
    server: Server
    name: str
    namespaces: dict[str | None, str] = field(default_factory=dict)
    """By their label's value."""

    def asks(self, spec: dict[str, Any], labels: dict[str, str] = JOB, namespace: str | None = "volumes") -> bool:
        """Whether the API server asks about such a pod."""
        name = f"pod-{uuid4().hex[:8]}"
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": self.namespaces[namespace], "labels": labels},
            "spec": {"serviceAccountName": "trains", **spec},
        }
        self.cluster.kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
        return name in self.server.asked


@pytest.fixture(scope="module")
def door(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder, name = tmp_path_factory.mktemp("tls"), f"admission-{uuid4().hex[:6]}"
    certificate, key = folder / "tls.crt", folder / "tls.key"
    key_type = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", *key_type, "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    settings = r"injection=volumes,webhook.gpuResource=nvidia.com/gpu\,site.example/gpu"
    rendered = yaml.safe_load_all(cluster.helm("template", name, CHART, "--set", settings))
    (hook,) = (one for one in rendered if one and one["kind"] == "MutatingWebhookConfiguration")
    with Server(certificate, key) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        door = Door(cluster, server, name)
        (asked,) = hook["webhooks"]
        authority = base64.b64encode(certificate.read_bytes()).decode()
        asked["clientConfig"] = {"url": f"https://127.0.0.1:{server.server_port}/mutate", "caBundle": authority}
        asked["timeoutSeconds"] = 10  # on a busy machine
        try:
            for label in ("volumes", "nri", None):
                namespace = door.namespaces[label] = f"{name}-{label or 'none'}".lower()
                cluster.kubectl("create", "namespace", namespace)
                cluster.kubectl("create", "serviceaccount", "trains", "-n", namespace)
                if label is not None:
                    cluster.kubectl("label", "namespace", namespace, f"{LABEL}={label}")
            # Another release's namespaces are none of ours.
            ours = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [*door.namespaces.values()]}
            asked["namespaceSelector"]["matchExpressions"] = [ours]
            cluster.kubectl("create", "-f", "-", stdin=json.dumps(hook))
            until("the API server knows the webhook", 60, lambda: door.asks(pod()))
            yield door
        finally:
            cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=json.dumps(hook))
            for namespace in door.namespaces.values():
                cluster.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
            server.shutdown()


def container(name: str = "pytorch", **limits: Any) -> dict[str, Any]:
    gpus = {key.replace("__", "/").replace("_", "."): value for key, value in limits.items()}
    return {"name": name, "image": "i", **({"resources": {"limits": gpus}} if gpus else {})}


def pod(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"containers": list(containers) or [container(nvidia_com__gpu=1)], **spec}


@pytest.mark.parametrize(
    "spec",
    [
        pod(),
        pod(container(nvidia_com__gpu="8", cpu="4")),
        pod(container(site_example__gpu=2)),
        pod(container("side"), container("other", cpu=1), container(nvidia_com__gpu=1)),
    ],
    ids=["a number", "a text", "another resource", "beside others"],
)
def test_it_asks_about_pods_of_a_job_that_ask_for_a_gpu_where_the_namespace_does(
    door: Door, spec: dict[str, Any]
) -> None:
    assert door.asks(spec)


@pytest.mark.parametrize(
    "spec",
    [
        pod(container()),
        pod(container(cpu="4")),
        pod(container(nvidia_com__gpu=0)),
        pod(container(amd_com__gpu=1)),
        pod(container(), initContainers=[container("first", nvidia_com__gpu=1)]),
    ],
    ids=["no limits", "none of a GPU", "none", "another's", "an init container's alone"],
)
def test_it_asks_about_no_pod_without_a_gpu_that_counts(door: Door, spec: dict[str, Any]) -> None:
    assert not door.asks(spec)


@pytest.mark.parametrize("namespace", ["nri", None])
def test_it_asks_about_no_pod_of_a_namespace_without_the_label(door: Door, namespace: str | None) -> None:
    assert not door.asks(pod(), namespace=namespace)


def test_it_asks_about_pods_of_a_job_of_kubernetes_own(door: Door) -> None:
    assert door.asks(pod(), labels={"batch.kubernetes.io/job-name": "gpt3"})


def test_it_asks_about_no_pod_that_is_no_jobs(door: Door) -> None:
    assert not door.asks(pod(), labels={})
    assert not door.asks(pod(), labels={"training.kubeflow.org/replica-type": "worker"})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"env": [{"name": "PYTHONPATH", "value": "/app"}]},
        {"envFrom": [{"configMapRef": {"name": "c"}}], "securityContext": {"runAsUser": 1000, "runAsNonRoot": True}},
        {"resources": {"limits": {"nvidia.com/gpu": 8, "cpu": 8, "memory": "64Gi", "hugepages-2Mi": "2Mi"}}},
    ],
    ids=["bare", "its own path", "as a user", "exclusive CPUs"],
)
def test_a_patched_pod_is_one_that_the_api_server_takes(door: Door, fields: dict[str, Any]) -> None:
    metadata = {"name": "patched", "namespace": door.namespaces["volumes"], "labels": JOB}
    spec = {"serviceAccountName": "trains", "containers": [{**container(nvidia_com__gpu=1), **fields}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    patched = jsonpatch.apply_patch(body, list(inject(body, ["nvidia.com/gpu"]).patch))
    assert patched != body
    options = ("--dry-run=server", "-o", "json", "-f", "-")
    made = json.loads(door.cluster.kubectl("create", *options, stdin=json.dumps(patched)))
    assert inject(made, ["nvidia.com/gpu"]) == Outcome(), "a second time changes nothing"
