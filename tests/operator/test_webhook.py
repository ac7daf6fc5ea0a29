"""The webhook always allows, over real TLS too."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import pytest

from joulepath_crds import JobName
from joulepath_operator.facts.admission import Stop
from joulepath_operator.webhook import connections
from joulepath_operator.webhook.server import Webhook, serve
from joulepath_operator.webhook.stops import Stops

T = TypeVar("T")

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

    async def metadata(self, job: tuple[str, JobName]) -> Any:
        self.asked += 1
        namespace, named = job
        assert (namespace, named.kind.plural, named.name) == ("team", "pytorchjobs", "gpt3")
        if isinstance(self._annotations, Exception):
            raise self._annotations
        return {"uid": "u", "annotations": self._annotations}

    async def level(self, namespace: str) -> Any:
        return self._level

    def webhook(self, stops: Stops | None = None) -> Webhook:
        return Webhook(("nvidia.com/gpu",), stops or Stops(dict), lambda job: self.metadata(job), self.level)


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
        [{"apiVersion": "batch/v1", "kind": "CronJob", "name": "gpt3", "uid": "u", "controller": True}],
        [{"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob", "name": "gpt3", "uid": "u"}],
    ],
)
def test_pods_of_nobody_we_know_are_not_looked_up(owners: list[dict[str, Any]]) -> None:
    lookups = Lookups(ANNOTATED)
    assert "patch" not in answer(lookups, review(ownerReferences=owners))
    assert lookups.asked == 0


def test_a_job_without_annotation_is_left_without_a_word() -> None:
    assert answer(Lookups({}), review()) == {"uid": "request-1", "allowed": True}


JOB = {"apiVersion": "batch/v1", "kind": "Job", "name": "train-node-0", "uid": "u", "controller": True}
JOB_SET = {"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "name": "train", "uid": "v", "controller": True}
TRAIN_JOB = {**JOB_SET, "apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "uid": "w"}


@pytest.mark.parametrize("annotated", ["train-node-0", "JobSet", "TrainJob"])
@pytest.mark.parametrize("recreated", [False, True])
def test_a_pod_asks_by_the_annotation_of_the_topmost_job(annotated: str, recreated: bool) -> None:
    there: dict[str, dict[str, Any]] = {
        "Job": {"name": "train-node-0", "uid": "u", "ownerReferences": [JOB_SET]},
        "JobSet": {"name": "train", "uid": "v", "ownerReferences": [TRAIN_JOB]},
        "TrainJob": {"name": "train", "uid": "another" if recreated else "w"},
    }
    there[annotated if annotated in there else "Job"]["annotations"] = ANNOTATED

    async def metadata(job: tuple[str, JobName]) -> Any:
        return there[job[1].kind.kind]

    async def level(namespace: str) -> None: ...

    webhook = Webhook(("nvidia.com/gpu",), Stops(dict), metadata, level)
    body = review(ownerReferences=[JOB])
    body["request"]["object"]["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": "/app"}]
    response = asyncio.run(webhook.answer(body))["response"]
    assert ("patch" in response) == (annotated == "TrainJob" and not recreated)


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_a_namespace_that_forbids_hostpath_is_left_with_a_warning(level: str) -> None:
    response = answer(Lookups(ANNOTATED, level), review())
    assert "patch" not in response
    assert level in response["warnings"][0]
    assert "patch" in answer(Lookups(ANNOTATED, "privileged"), review())


NOW, SOON, LONG_AGO = "2026-01-01T01:00:00Z", "2026-01-01T01:01:00Z", "2026-01-01T00:00:00Z"
STOP = Stop(LONG_AGO, SOON, 600, "pod p on node n: StartError")


class Stopped:
    """A webhook and what the operator has written down, at a time that stands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.written: Any = {}
        self.now = NOW
        monkeypatch.setattr("joulepath_operator.webhook.stops._now", lambda: self.now)
        self.webhook = Lookups(ANNOTATED).webhook(Stops(self._read))

    def _read(self) -> Any:
        if isinstance(self.written, Exception):
            raise self.written
        return self.written

    def injects(self, body: dict[str, Any] | None = None) -> bool:
        """Whether it injects a pod that comes after it has looked."""

        async def looked() -> dict[str, Any]:
            await self.webhook.stops.look()
            return await self.webhook.answer(body or review())

        self.response = asyncio.run(looked())["response"]
        assert self.response["allowed"] is True
        return "patch" in self.response


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Stopped:
    return Stopped(monkeypatch)


def test_where_injection_is_stopped_pods_are_left_with_a_warning_and_elsewhere_not(stopped: Stopped) -> None:
    stopped.written = {"team": STOP}
    assert not stopped.injects()
    assert "pod p on node n: StartError" in stopped.response["warnings"][0]
    stopped.written = {"another": STOP}
    assert stopped.injects()
    stopped.written = {"team": replace(STOP, over_at=LONG_AGO)}
    assert stopped.injects()


def test_a_pod_that_needs_no_init_container_is_injected_all_the_same(stopped: Stopped) -> None:
    stopped.written = {"team": STOP}
    body = review()
    body["request"]["object"]["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": "/app"}]
    assert stopped.injects(body)


def test_where_pods_were_refused_none_gets_anything_of_ours(stopped: Stopped) -> None:
    stopped.written = {"team": replace(STOP, why="a pod of gpt3 was refused: no hostPath", denied=True)}
    body = review()
    assert not stopped.injects(body)
    body["request"]["object"]["spec"]["containers"][0]["env"] = [{"name": "PYTHONPATH", "value": "/app"}]
    assert not stopped.injects(body)
    assert "no hostPath)" in stopped.response["warnings"][0]
    assert "injected all the same" not in stopped.response["warnings"][0]


def test_after_a_while_one_pod_may_try_and_after_another_one_more(stopped: Stopped) -> None:
    stopped.written = {"team": STOP}
    stopped.now = SOON
    assert [stopped.injects() for _ in range(3)] == [True, False, False]
    stopped.written = {"team": replace(STOP, until=NOW)}
    assert [stopped.injects() for _ in range(3)] == [True, False, False]


def test_a_dry_run_takes_nobody_s_try(stopped: Stopped) -> None:
    stopped.written = {"team": STOP}
    stopped.now = SOON
    body = review()
    body["request"]["dryRun"] = True
    assert [stopped.injects(body), stopped.injects(body), stopped.injects(), stopped.injects(body)] == [
        True,
        True,
        True,
        False,
    ]


def test_what_cannot_be_read_leaves_things_as_they_are_known(stopped: Stopped) -> None:
    stopped.written = OSError("no answer")
    assert stopped.injects(), "nothing is known yet"
    stopped.written = {"team": STOP}
    assert not stopped.injects()
    stopped.written = OSError("no answer")
    assert not stopped.injects()


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


@dataclass(frozen=True)
class Served:
    """A webhook over TLS."""

    port: int
    trusting: ssl.SSLContext
    lookups: Lookups

    async def asked(self, body: Any) -> tuple[int, Any]:
        """Status and answer of a review, over a connection of its own."""
        connector = aiohttp.TCPConnector(ssl=self.trusting)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{self.port}", connector=connector) as web:
            sent = {"json": body} if isinstance(body, dict) else {"data": io.BytesIO(body)}
            async with web.post("/mutate", **sent) as told:
                return told.status, await told.json() if told.status == 200 else None


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Certificate and key for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    key_type = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    command = ["openssl", "req", "-x509", *key_type, "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key


@pytest.fixture
def play(pair: tuple[Path, Path]) -> Callable[[Callable[[Served], Awaitable[T]]], T]:
    """Runs what plays with a webhook that serves."""

    async def served(scene: Callable[[Served], Awaitable[T]]) -> T:
        lookups, port, health_port = Lookups(ANNOTATED), _free_port(), _free_port()
        server = asyncio.ensure_future(serve(lookups.webhook(), *pair, "127.0.0.1", port, health_port))
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{health_port}") as web:
                while True:
                    with suppress(aiohttp.ClientConnectorError):
                        async with web.get("/healthz") as healthy:
                            assert healthy.status == 200
                            break
                    await asyncio.sleep(0.01)
            return await scene(Served(port, ssl.create_default_context(cafile=str(pair[0])), lookups))
        finally:
            server.cancel()
            with suppress(asyncio.CancelledError):
                await server

    return lambda scene: asyncio.run(served(scene))


def test_it_serves_over_tls(play: Callable[..., Any]) -> None:
    async def scene(webhook: Served) -> Any:
        return [await webhook.asked(body) for body in (review(), b"{", b"x" * (257 << 10), b"[" * 100_000)]

    (status, told), *wrong = play(scene)
    assert status == 200
    assert "patch" in told["response"]
    assert wrong == [(400, None), (413, None), (400, None)]


@pytest.mark.parametrize(("padding", "limited"), [(0, False), (40 << 10, True)])
def test_large_reviews_are_decided_a_few_at_a_time_and_small_ones_wait_for_none(
    play: Callable[..., Any], padding: int, limited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each large one may take megabytes while it waits for a look-up."""
    now = most = 0

    async def slow(job: object) -> Any:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        while most < (4 if limited else 5):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        now -= 1
        return {"uid": "u", "annotations": ANNOTATED}

    async def scene(webhook: Served) -> list[int]:
        webhook.lookups.metadata = slow  # type: ignore[method-assign]
        answers = await asyncio.gather(*(webhook.asked(review(name="n" * padding)) for _ in range(32)))
        return [status for status, told in answers if "patch" in told["response"]]

    monkeypatch.setattr("joulepath_operator.webhook.server.LOOKUP_TIMEOUT_S", 60)
    monkeypatch.setattr(connections, "ANSWERED_WITHIN_S", 60)
    assert play(scene) == [200] * 32
    assert (most <= 4) == limited


HEAD: Final = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"
HELLO: Final = bytes.fromhex("16030100fa010000f60303") + bytes(100)
"""How a TLS handshake begins."""


@pytest.mark.parametrize("count", [64, 200])
def test_reviews_are_answered_while_others_drip(play: Callable[..., Any], count: int) -> None:
    async def drip(webhook: Served, index: int) -> None:
        """Stalls before, in or after its handshake, within its head or its body."""
        if index % 4 < 2:
            _, writer = await asyncio.open_connection("127.0.0.1", webhook.port)
        else:
            _, writer = await asyncio.open_connection("127.0.0.1", webhook.port, ssl=webhook.trusting)
        said = (b"", HELLO, HEAD, HEAD + b"Content-Length: 100\r\n\r\n{")[index % 4]
        begun.append(writer)
        with suppress(OSError):
            for byte in said:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
            await asyncio.sleep(60)

    async def scene(webhook: Served) -> list[int]:
        dripping = [asyncio.ensure_future(drip(webhook, index)) for index in range(count)]
        while len(begun) + sum(one.done() for one in dripping) < count:
            await asyncio.sleep(0.01)
        answers = [await webhook.asked(review()) for _ in range(10)]
        for one in dripping:
            one.cancel()
        await asyncio.gather(*dripping, return_exceptions=True)
        for writer in begun:
            writer.transport.abort()
        return [status for status, told in answers if "patch" in told["response"]]

    begun: list[asyncio.StreamWriter] = []
    assert play(scene) == [200] * 10


@pytest.mark.parametrize("said", [None, HELLO, b"", HEAD, HEAD + b"Content-Length: 100\r\n\r\n{"])
def test_whoever_takes_too_long_is_hung_up_on(
    play: Callable[..., Any], said: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(webhook: Served) -> None:
        secure = webhook.trusting if said is not None and said is not HELLO else None
        reader, writer = await asyncio.open_connection("127.0.0.1", webhook.port, ssl=secure)
        writer.write(said or b"")
        with suppress(ConnectionError):
            await reader.read()
        writer.transport.abort()

    monkeypatch.setattr(connections, "ANSWERED_WITHIN_S", 0.5)
    play(scene)


class ClosesTwice(asyncio.Protocol):
    """As a server does whose client hangs up while it is answered."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, _: bytes) -> None:
        self._transport.close()
        self._transport.close()


def test_a_connection_that_is_closed_already_is_dropped_in_silence(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene() -> list[Any]:
        amiss: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: amiss.append(context))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*pair)
        trusting = ssl.create_default_context(cafile=str(pair[0]))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            accepting = asyncio.ensure_future(connections.Connections(ClosesTwice, context).accept(listener))
            reader, writer = await asyncio.open_connection(*listener.getsockname(), ssl=trusting)
            writer.write(b"a request")
            await reader.read()
            await asyncio.sleep(2 * connections.ANSWERED_WITHIN_S)
            accepting.cancel()
            await asyncio.gather(accepting, return_exceptions=True)
            writer.transport.abort()
        return amiss

    monkeypatch.setattr(connections, "ANSWERED_WITHIN_S", 0.2)
    assert asyncio.run(scene()) == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
