"""API server and kubelet as far as an agent asks them; the API server misbehaves at times."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joulepath_agent.peers.podresources import TYPES
from joulepath_crds import (
    BEGINS_ANNOTATION,
    JOB_UID_LABEL,
    Begins,
    Blocks,
    JobPlanSpec,
    Measurements,
    Purpose,
    StagePlan,
    Sweep,
    content_hash,
)
from tests.agent.soaking import CLOCKS_MHZ, GPUS_OF_A_JOB, ORDER
from tests.json_server import JsonHandler, serving

__all__ = ["Cluster", "plan_of", "served"]


@dataclass
class Cluster:
    """What the API server and the kubelet double know and have seen."""

    watch_s: float
    pods: dict[str, tuple[str, Sequence[str]]] = field(default_factory=dict)
    """By name: the job, and the GPUs."""
    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By job."""
    told: list[dict[str, Any]] = field(default_factory=list)
    """Events of JobPlans; the version of each is its place."""
    fed: Counter[str] = field(default_factory=Counter)
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By path: Leases and what agents tell, as they were made."""
    iterations: dict[tuple[str, int], int] = field(default_factory=dict)
    """By job and rank: the last that the agent has reported."""
    ranks: int = 0
    """That the last report names."""
    blocks: int = 0
    """Ranks of all reports that had whole blocks measured."""
    changed: threading.Condition = field(default_factory=threading.Condition)

    def pod(self, name: str) -> dict[str, Any]:
        """As the API gives it."""
        job = self.pods[name][0]
        owner = {
            "apiVersion": "kubeflow.org/v1",
            "kind": "PyTorchJob",
            "name": job,
            "uid": f"uid-{job}",
            "controller": True,
        }
        metadata = {"name": name, "namespace": "default", "uid": name, "ownerReferences": [owner]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": {"phase": "Running"}}

    def held(self) -> bytes:
        """As the kubelet tells it."""
        self.fed["questions to the kubelet"] += 1
        pods = [
            {
                "name": name,
                "namespace": "default",
                "containers": [
                    {"name": "pytorch", "devices": [{"resource_name": "nvidia.com/gpu", "device_ids": list(gpus)}]}
                ],
            }
            for name, (_, gpus) in tuple(self.pods.items())
        ]
        whole: bytes = TYPES["ListPodResourcesResponse"](pod_resources=pods).SerializeToString()
        return whole

    def plan(self, job: str, spec: JobPlanSpec | None) -> None:
        """A plan is made, made anew or deleted."""
        with self.changed:
            kind = "MODIFIED" if job in self.plans else "ADDED"
            if spec is None:
                item = self.plans.pop(job)
            else:
                metadata = {
                    "name": job,
                    "namespace": "default",
                    "uid": f"plan-{job}",
                    "creationTimestamp": "2026-01-01",
                    "labels": {JOB_UID_LABEL: spec.job_uid},
                    "annotations": {BEGINS_ANNOTATION: Begins.of(spec).model_dump_json(by_alias=True)},
                }
                item = self.plans[job] = {"metadata": metadata, "spec": spec.to_api()}
            item["metadata"]["resourceVersion"] = str(len(self.told) + 1)
            self.told.append({"type": "DELETED" if spec is None else kind, "object": json.loads(json.dumps(item))})
            self.fed["changes of plans"] += 1
            self.changed.notify_all()

    def report(self, body: dict[str, Any]) -> None:
        """A part of what an agent knows was written."""
        self.fed["reports"] += 1
        status = body["status"]
        if "packed" in status:
            self.blocks += sum(bool(rank.blocks) for rank in Measurements.unpacked(status["packed"]).ranks)
        elif "gpus" not in status:
            self.ranks = sum(len(job["ranks"]) for job in status["jobs"])
            for job in status["jobs"]:
                for rank in job["ranks"]:
                    at = job["job"], rank["rank"]
                    self.iterations[at] = max(self.iterations.get(at, 0), rank["iteration"])


class _Handler(JsonHandler, BaseHTTPRequestHandler):
    """The API server's answers."""

    cluster: Cluster

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(url.query).items()}
        last = url.path.rpartition("/")[2]
        if last == "energypolicies":
            self._no_policy(watched="watch" in asked)
        elif "watch" in asked:
            self._watch(int(asked["resourceVersion"]))
        elif last == "jobplans":
            name = asked.get("fieldSelector", "").removeprefix("metadata.name=")
            self.cluster.fed["reads of plans" if name else "lists of plans"] += 1
            with self.cluster.changed:
                listed = {
                    "items": [one for job, one in self.cluster.plans.items() if name in ("", job)],
                    "metadata": {"resourceVersion": str(len(self.cluster.told))},
                }
                self.answer(200, listed)
        elif "/pods/" in url.path:
            self.cluster.fed["reads of pods"] += 1
            self.answer(200, self.cluster.pod(last)) if last in self.cluster.pods else self.answer(404, {})
        else:
            self.answer(200, {"metadata": {"name": last, "uid": "node-uid"}})

    def _no_policy(self, *, watched: bool) -> None:
        if not watched:
            self.answer(200, {"items": [], "metadata": {"resourceVersion": "1"}})
            return
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        time.sleep(self.cluster.watch_s)
        self.close_connection = True

    def do_PATCH(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path.removesuffix("/status")
        if path not in self.cluster.made:
            self.answer(404, {})
            return
        if "/leases/" in path:
            self.cluster.fed["signs of life"] += 1
        else:
            self.cluster.report(body)
        self.answer(200, body)

    def do_POST(self) -> None:
        body = self._body()
        if "metadata" in body:
            self.cluster.made[f"{urlsplit(self.path).path}/{body['metadata']['name']}"] = body
            self.answer(201, body)
        else:
            self.answer(201, body | {"status": {"reviewed": body["spec"]}})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _watch(self, version: int) -> None:
        self.cluster.fed["watches"] += 1
        turn = self.cluster.fed["watches"]
        self.send_response(200)
        self.send_header("Connection", "close")
        self.end_headers()
        until_s = time.monotonic() + self.cluster.watch_s
        while (left_s := until_s - time.monotonic()) > 0:
            with self.cluster.changed:
                news = self.cluster.told[version:]
                if not news:
                    self.cluster.changed.wait(left_s)
            for event in news:
                self.wfile.write(json.dumps(event).encode() + b"\n")
            version += len(news)
        if turn % 10 == 0:  # the history was compacted
            gone = {"kind": "Status", "code": 410, "status": "Failure", "reason": "Expired", "message": "too old"}
            self.wfile.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
        elif turn % 10 == 5:  # the server dies
            reset = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is none of its troubles."""


@contextmanager
def served(cluster: Cluster) -> Iterator[str]:
    """Serves its API; the URL."""
    with serving(type("Handler", (_Handler,), {"cluster": cluster}), _Server) as url:
        yield url


def plan_of(job: str, number: int) -> JobPlanSpec:
    """The plans of a job: a sweep at first, then ever new ones that order another clock at each end."""
    sweep = Sweep(clocks_mhz=(0, 1410, 1200, 0, 900), iterations_per_block=4)
    stages = tuple(
        StagePlan(stage=stage, order=ORDER, clocks_mhz=CLOCKS_MHZ, durations_s=(10.0 + number,) * len(ORDER))
        for stage in range(GPUS_OF_A_JOB)
    )
    enforced: dict[str, Any] = {"stages": stages, "blocks": Blocks(iterations=4, pairs=4, every=5)}
    spec = JobPlanSpec(
        energy_plan="plan",
        job=job,
        job_uid=f"uid-{job}",
        purpose=Purpose.SWEEP if number == 0 else Purpose.ENFORCE,
        hash="0" * 16,
        activate_at=1,
        default_clock_mhz=1410,
        allowed_slowdown=0.5,
        **({"sweep": sweep} if number == 0 else enforced),
    )
    return spec.model_copy(update={"hash": content_hash(spec)})
