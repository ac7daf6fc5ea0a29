"""The webhook always allows, over real TLS too."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from joulepath_operator.facts.names import NamespacedName, Resource
from joulepath_operator.jobs.pytorchjob import PYTORCH_JOBS
from joulepath_operator.webhook.patch import Injection
from joulepath_operator.webhook.server import Webhook, serve

ANNOTATED = {"joulepath.dev/energy-plan": "plan"}


def review(**metadata: Any) -> dict[str, Any]:
    owner = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "gpt3", "uid": "u", "controller": True}
    pod = {
        "metadata": {"ownerReferences": [owner], **metadata},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 1}}}]},
    }
    return {"request": {"uid": "request-1", "namespace": "team", "object": pod}}


class Lookups:
    """What the API server would answer, and how often it was asked."""

    def __init__(self, annotations: Any, level: Any = None) -> None:
        self._annotations, self._level, self.asked = annotations, level, 0

    async def annotations(self, job: tuple[Resource, NamespacedName]) -> Any:
        self.asked += 1
        assert job == (PYTORCH_JOBS, ("team", "gpt3"))
        if isinstance(self._annotations, Exception):
            raise self._annotations
        return self._annotations

    async def level(self, namespace: str) -> Any:
        return self._level

    def webhook(self) -> Webhook:
        return Webhook(Injection("example.test/trainer:1"), self.annotations, self.level)


def answer(lookups: Lookups, body: dict[str, Any]) -> dict[str, Any]:
    told = asyncio.run(lookups.webhook().answer(body))
    assert told["kind"] == "AdmissionReview"
    response: dict[str, Any] = told["response"]
    assert response["allowed"] is True
    return response


def test_a_pod_of_an_annotated_job_is_patched() -> None:
    response = answer(Lookups(ANNOTATED), review())
    assert response["uid"] == "request-1"
    assert response["patchType"] == "JSONPatch"
    assert json.loads(base64.b64decode(response["patch"]))[0]["path"] == "/spec/volumes"


@pytest.mark.parametrize(
    "owners",
    [
        [],
        [{"apiVersion": "batch/v1", "kind": "Job", "name": "gpt3", "controller": True}],
        [{"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "gpt3"}],
    ],
)
def test_pods_of_nobody_we_know_are_not_looked_up(owners: list[dict[str, Any]]) -> None:
    lookups = Lookups(ANNOTATED)
    assert "patch" not in answer(lookups, review(ownerReferences=owners))
    assert lookups.asked == 0


def test_a_job_without_annotation_is_left_without_a_word() -> None:
    assert answer(Lookups({}), review()) == {"uid": "request-1", "allowed": True}


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_hostpath_is_left_with_a_warning(level: str) -> None:
    response = answer(Lookups(ANNOTATED, level), review())
    assert "patch" not in response
    assert level in response["warnings"][0]
    assert "patch" in answer(Lookups(ANNOTATED, "privileged"), review())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request": {}},
        {"request": {"uid": "x", "namespace": "team", "object": {"metadata": {"ownerReferences": 3}}}},
    ],
)
def test_what_makes_no_sense_is_allowed_with_a_warning(body: dict[str, Any]) -> None:
    assert "not injected" in answer(Lookups(ANNOTATED), body)["warnings"][0]


def test_an_api_server_that_fails_is_no_reason_to_refuse_and_is_asked_again() -> None:
    lookups = Lookups(TimeoutError("no answer within 1 s"))
    webhook = lookups.webhook()
    for _ in range(2):
        response = asyncio.run(webhook.answer(review()))["response"]
        assert response["allowed"] is True
        assert "no answer" in response["warnings"][0]
    assert lookups.asked == 2


def test_a_gang_s_pods_take_one_lookup() -> None:
    lookups = Lookups(ANNOTATED)
    webhook = lookups.webhook()

    async def gang() -> None:
        for _ in range(8):
            await webhook.answer(review())

    asyncio.run(gang())
    assert lookups.asked == 1


def test_it_serves_over_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(certificate))

    async def play(port: int, health_port: int) -> tuple[dict[str, Any], int, int]:
        webhook = Lookups(ANNOTATED).webhook()
        server = asyncio.ensure_future(serve(webhook, certificate, key, "127.0.0.1", port, health_port))
        try:
            async with aiohttp.ClientSession(
                f"https://127.0.0.1:{port}", connector=aiohttp.TCPConnector(ssl=context)
            ) as web:
                while True:
                    with suppress(aiohttp.ClientConnectorError):
                        async with web.get(f"http://127.0.0.1:{health_port}/healthz") as healthy:
                            break
                    await asyncio.sleep(0.01)
                async with web.post("/mutate", json=review()) as good, web.post("/mutate", data=b"{") as bad:
                    return await good.json(), healthy.status, bad.status
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server

    told, healthy, bad = asyncio.run(play(_free_port(), _free_port()))
    assert (healthy, bad) == (200, 400)
    assert "patch" in told["response"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
