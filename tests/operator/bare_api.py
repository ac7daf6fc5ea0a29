"""An API server that answers as real ones do at their worst, and what an EnergyPlan finds there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from kubernetes import client

from joulepath_crds import ANNOTATION, JOB_UID_LABEL, NodeReportStatus
from joulepath_operator.control.api import Api
from joulepath_operator.control.index import Index
from joulepath_operator.facts.labels import INPUTS_ANNOTATION
from joulepath_operator.facts.names import (
    ENERGY_PROFILES,
    NODE_REPORTS,
)

__all__ = [
    "PLAN",
    "TAKEN",
    "Answer",
    "Server",
    "api",
    "job_plan",
    "owned_by",
    "server",
    "sweep_of",
    "training_pod",
    "watched",
]

Answer = tuple[int, Any]
TAKEN: Answer = (409, {"message": "already exists"})
PLAN = ("team", "plan")


class Server(HTTPServer):
    """Objects by the end of their path; whatever is posted is answered by `refusal`."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, Any] = {}
        self.refusal: Answer = (404, {})
        self.posts = 0
        self.gets: list[str] = []
        self.events: list[dict[str, Any]] = []
        self.puts: list[str] = []
        self.unknown: set[str] = set()
        """Fields and phases of a status that its CustomResourceDefinition doesn't have."""
        self.deletes: list[str] = []
        self.forbidden: set[str] = set()
        """What may not be read."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self, answer: Answer) -> None:
        self.send_response(answer[0])
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answer[1]).encode())

    def _name(self) -> str:
        return "/".join(self.path.partition("?")[0].removesuffix("/status").rsplit("/", 2)[1:])

    def do_GET(self) -> None:
        self.server.gets.append(self._name())
        found = self.server.objects.get(self._name())
        if self._name() in self.server.forbidden:
            self._answer((403, {"message": f"{self._name()} is forbidden: User u cannot list it"}))
        else:
            self._answer((404, {}) if found is None else (200, found))

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._name() not in self.server.objects:
            self._answer((404, {}))
            return
        if (status := body.get("status", {})).get("phase") in self.server.unknown:
            self._answer((422, {"message": f"status.phase: Unsupported value: {status['phase']}"}))
            return
        for field in self.server.unknown & status.keys():
            del status[field]
        self.server.objects[self._name()] = body
        self.server.puts.append(self._name())
        self._answer((200, body))

    def do_DELETE(self) -> None:
        self.server.deletes.append(self._name())
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        version = asked.get("preconditions", {}).get("resourceVersion")
        found = self.server.objects.get(self._name())
        if found is not None and version not in (None, found["metadata"]["resourceVersion"]):
            self._answer((409, {"message": "the object has been modified"}))
        else:
            self._answer((404, {}) if self.server.objects.pop(self._name(), None) is None else (200, {}))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self._name() == "team/events":
            self.server.events.append(body)
            self._answer((403, {"message": "may not"}))
            return
        self.server.posts += 1
        status, said = self.server.refusal
        self._answer((status, body | said if status == 201 else said))

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        yield one
        one.shutdown()
        thread.join()


@pytest.fixture
def api(server: Server) -> Api:
    return Api(client.ApiClient(client.Configuration(host=f"http://127.0.0.1:{server.server_port}")))


def owned_by(version: str, kind: str, name: str, uid: str) -> dict[str, Any]:
    """A reference to a controller."""
    return {"apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": True}


def training_pod(number: int, job_uid: str, **spec: Any) -> dict[str, Any]:
    """A pod of the job that runs on the node of the same number, as the API server has it."""
    gpus = {"limits": {"nvidia.com/gpu": "4"}}
    running = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    return {
        "metadata": {
            "name": f"gpt3-worker-{number}",
            "uid": f"pod-{number}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [owned_by("kubeflow.org/v1", "PyTorchJob", "gpt3", job_uid)],
        },
        "spec": {"containers": [{"name": "c", "image": "i", "resources": gpus}], "nodeName": f"node-{number}", **spec},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": running}]},
    }


def watched(server: Server, world: Any) -> Index:
    """A server and an index that hold the EnergyPlan, the job, its pods, nodes and profiles."""
    index = Index()
    metadata = {"namespace": "team", "name": "plan", "uid": "u", "resourceVersion": "1", "generation": 1}
    body = {"metadata": metadata, "spec": {"job": {"name": "gpt3"}}, "status": world.status.to_api()}
    server.objects["energyplans/plan"] = body
    job = {"namespace": "team", "name": "gpt3", "uid": world.job.uid, "annotations": {ANNOTATION: "plan"}}
    server.objects["pytorchjobs/gpt3"] = {"metadata": job}
    pods = [training_pod(number, world.job.uid) for number in range(2)]
    server.objects.setdefault("team/pods", {"items": pods})
    for node in world.nodes():
        status = NodeReportStatus(gpus=node.gpus, jobs=(node.report,)).to_api()
        index.put(NODE_REPORTS, {"metadata": {"name": node.node}, "status": status})
    for profile in world.profiles.values():
        labels = {JOB_UID_LABEL: profile.job_uid}
        metadata = {"namespace": "team", "name": profile.name, "labels": labels}
        index.put(ENERGY_PROFILES, {"metadata": metadata, "spec": profile.spec.to_api()})
    return index


def sweep_of(world: Any) -> Any:
    """The JobPlan that is written first."""
    copied = world.copy()
    while (plan := (decision := copied.decide()).write_plan) is None:
        assert copied._carry_out(decision)
    return plan


def job_plan(stored: Any, **metadata: Any) -> dict[str, Any]:
    owner = {"kind": "EnergyPlan", "name": "plan", "uid": "u"}
    told = {"namespace": "team", "name": stored.name, "uid": "u7", "resourceVersion": "7", "ownerReferences": [owner]}
    told |= {"labels": {JOB_UID_LABEL: stored.spec.job_uid}} | metadata
    return {"metadata": {**told, "annotations": {INPUTS_ANNOTATION: stored.inputs}}, "spec": stored.spec.to_api()}
