"""The admission webhook: asked about each Pod of a training job at its creation, it always allows.

Whatever goes wrong, a slow API server or a fault of ours, the answer is an unpatched pod and a warning; the pod then
trains as if there were no Joulepath. Two things are looked up, briefly and with a short memory, since a gang's pods
come together: the annotation of the job, by way of what it has made, and the Pod Security level of the namespace. Where
injection is stopped is known already.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, cast

from aiohttp import web

from joulepath_crds import ANNOTATION, JobName, controller, maker
from joulepath_operator.control.api import Api
from joulepath_operator.facts.labels import FORBIDDING_LEVELS
from joulepath_operator.injection.patch import Outcome, inject
from joulepath_operator.jobs.kinds import JOB_KINDS
from joulepath_operator.pulse import Pulse
from joulepath_operator.webhook.connections import Connections
from joulepath_operator.webhook.stops import Stops

__all__ = ["LOOKUP_TIMEOUT_S", "Webhook", "serve"]

log = logging.getLogger(__name__)

LOOKUP_TIMEOUT_S: Final = 0.4
"""The API server itself waits for a second, and two things are looked up."""
_BODY_BYTES: Final = 256 * 2**10
"""Of a review: trainings' take some 20 KiB. Larger ones get an error, and so the pod stays as it is."""
_SMALL_BYTES: Final = 32 * 2**10
_AT_ONCE: Final = 4
"""Larger reviews that are parsed and decided: JSON may take 24 times its bytes in memory."""
_REMEMBER_S: Final = 5.0
_CERTIFICATE_CHECK_S: Final = 60.0

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Webhook:
    """`metadata` tells that of a job in a namespace, `levels` the Pod Security level of a namespace."""

    def __init__(
        self,
        gpu_resources: Sequence[str],
        stops: Stops,
        metadata: Callable[[tuple[str, JobName]], Awaitable[Mapping[str, Any]]],
        levels: Callable[[str], Awaitable[str | None]],
    ) -> None:
        self.stops = stops
        self._turn = asyncio.Semaphore(_AT_ONCE)
        self._gpu_resources = gpu_resources
        self._metadata, self._levels = _Remembered(metadata), _Remembered(levels)

    @classmethod
    def of(cls, api: Api, gpu_resources: Sequence[str]) -> Webhook:
        """Looks up by an API whose own timeout should be `LOOKUP_TIMEOUT_S`."""

        resources = {kind.resource.kind: kind.resource for kind in JOB_KINDS}

        def metadata(job: tuple[str, JobName]) -> Mapping[str, Any]:
            namespace, named = job
            found: Mapping[str, Any] = api.get(resources[named.kind.kind], (namespace, named.name)) or {}
            return found.get("metadata") or {}

        return cls(
            gpu_resources,
            Stops(api.stops),
            lambda job: asyncio.to_thread(metadata, job),
            lambda namespace: asyncio.to_thread(lambda: api.admission(namespace).level),
        )

    def app(self) -> web.Application:
        """POST /mutate, once a connection."""
        app = web.Application(client_max_size=_BODY_BYTES)
        app.on_response_prepare.append(_close_after)
        app.router.add_post("/mutate", self._mutate)
        return app

    async def answer(self, review: Mapping[str, Any]) -> dict[str, Any]:
        """The AdmissionReview that answers one: always allowed."""
        request = review.get("request") or {}
        response: dict[str, Any] = {"uid": request.get("uid", ""), "allowed": True}
        try:
            outcome = await asyncio.wait_for(self._decide(request), 2 * LOOKUP_TIMEOUT_S)
            patch = json.dumps(outcome.patch, ensure_ascii=False).encode()
        except Exception as error:
            log.warning("a pod in %s is left as it is", request.get("namespace"), exc_info=True)
            outcome = Outcome(obstacles=(f"{type(error).__name__}: {error}"[:180],))
        if outcome.patch:
            response |= {"patchType": "JSONPatch", "patch": base64.b64encode(patch).decode()}
        if outcome.warnings:
            response["warnings"] = list(outcome.warnings)
        return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}

    async def _decide(self, request: Mapping[str, Any]) -> Outcome:
        pod, namespace = request["object"], request["namespace"]
        if not await self._asks(namespace, controller(pod["metadata"])):
            return Outcome()
        if (level := await self._levels(namespace)) in FORBIDDING_LEVELS:
            return Outcome(obstacles=(f"Pod Security level {level} forbids hostPath",))
        outcome = inject(pod, self._gpu_resources)
        dry_run = bool(request.get("dryRun"))
        if outcome.patch and (why := self.stops.obstacle(namespace, outcome.starts_first, dry_run)):
            return Outcome(obstacles=(why,))
        return outcome

    async def _asks(self, namespace: str, job: JobName | None) -> bool:
        """Whether a job asks for a plan; where another has made it, whether that one does."""
        annotations: Mapping[str, str] = {}
        while job is not None:
            metadata = await self._metadata((namespace, job))
            if metadata.get("uid") != job.uid:
                return False
            annotations, job = metadata.get("annotations") or {}, maker(job.kind, metadata)
        return ANNOTATION in annotations

    async def _mutate(self, request: web.Request) -> web.Response:
        if (size := request.content_length or 0) > _BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(_BODY_BYTES, size)
        body = await request.read()
        async with self._turn if len(body) > _SMALL_BYTES else nullcontext():
            try:
                review = json.loads(body)
            except (ValueError, RecursionError):
                return web.Response(status=400, text="an AdmissionReview in JSON was expected")
            return web.json_response(await self.answer(review if isinstance(review, dict) else {}))


async def _close_after(_: web.BaseRequest, response: web.StreamResponse) -> None:
    response.force_close()


async def serve(webhook: Webhook, certificate: Path, key: Path, host: str, port: int, health_port: int) -> None:
    """Serves until it is cancelled, health in a thread apart; takes up a renewed certificate within a minute."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    # Whoever has hung up waits for no turn.
    runner = web.AppRunner(webhook.app(), access_log=None, handler_cancellation=True)
    await runner.setup()
    pulse = Pulse()
    connections = Connections(cast("web.Server", runner.server), context)
    try:
        with closing(socket.create_server((host, port))) as listener, closing(pulse.serve(host, health_port)):
            log.info("webhook listens on %s:%d", host, port)
            await asyncio.gather(
                pulse.beat(),
                webhook.stops.follow(),
                connections.accept(listener),
                _renew(context, certificate, key),
            )
    finally:
        await runner.cleanup()


async def _renew(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    loaded = certificate.stat().st_mtime
    while True:
        await asyncio.sleep(_CERTIFICATE_CHECK_S)
        with suppress(OSError, ssl.SSLError):  # half-written: the old one serves on
            if (changed := certificate.stat().st_mtime) != loaded:
                context.load_cert_chain(certificate, key)
                loaded = changed


class _Remembered(Generic[K, V]):
    """A look-up whose answers hold for a few seconds; failures are not remembered."""

    def __init__(self, lookup: Callable[[K], Awaitable[V]]) -> None:
        self._lookup = lookup
        self._known: dict[K, tuple[float, V]] = {}

    async def __call__(self, key: K) -> V:
        now = time.monotonic()
        self._known = {key: entry for key, entry in self._known.items() if entry[0] > now}
        if key not in self._known:
            self._known[key] = now + _REMEMBER_S, await self._lookup(key)
        return self._known[key][1]
