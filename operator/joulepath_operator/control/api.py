"""The Kubernetes API, as little of it as is needed. Every call blocks, and ends within its timeout.

Writes carry the resourceVersion that the decision was made from: whoever is late gets a `ConflictError`, looks
again and decides again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from itertools import chain, islice
from typing import Any, Final, cast

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from joulepath_crds import BEGINS_ANNOTATION, JOB_UID_LABEL, Begins, EnergyPlanStatus, content_hash
from joulepath_operator.facts.absence import Way
from joulepath_operator.facts.admission import Admission, Denial, Stop, read_stops
from joulepath_operator.facts.labels import (
    AGENT_PODS,
    INJECTION_LABEL,
    INPUTS_ANNOTATION,
    POD_SECURITY_LABEL,
    first_written,
)
from joulepath_operator.facts.names import ENERGY_PLANS, ENERGY_PROFILES, JOB_PLANS, NamespacedName, Resource
from joulepath_operator.facts.observation import Notice, StoredPlan, StoredProfile

__all__ = ["Api", "Body", "ConflictError", "ForbiddenError", "UnacceptableError"]

Body = dict[str, Any]

_UNACCEPTABLE: Final = frozenset(
    {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
)
_TOO_LARGE: Final = "request is too large"
"""What etcd says, and the API server passes on as an internal error."""
_NOT_RUNNING: Final = "status.phase!=Running,status.phase!=Succeeded"
_PAGE: Final = 25
"""As each object may have 1.5 MiB, and take many times that in memory."""
_LONGEST_EVENT: Final = 1024
"""That controllers write; anybody may write longer ones."""
_DENIED_PREFIX: Final = "Error creating: "
log = logging.getLogger(__name__)


class ConflictError(Exception):
    """The object has changed since it was read, or exists already."""


class ForbiddenError(Exception):
    """This account may not do that; the message is the API server's own, and names the right."""


class UnacceptableError(Exception):
    """The API server won't ever take this object; the message is its own."""


class Api:
    """`timeout_s` holds for each request; `unlabelled` is the Pod Security level of namespaces that name none; `stops`
    names the ConfigMap that tells where injection is stopped, as (namespace, name)."""

    def __init__(
        self,
        connection: client.ApiClient,
        timeout_s: float = 10.0,
        unlabelled: str = "privileged",
        stops: NamespacedName | None = None,
    ) -> None:
        self._unlabelled, self._stops = unlabelled, stops
        self._custom, self._core = client.CustomObjectsApi(connection), client.CoreV1Api(connection)
        self._timeout_s = timeout_s

    @classmethod
    def connect(
        cls, timeout_s: float = 10.0, unlabelled: str = "privileged", stops: NamespacedName | None = None
    ) -> Api:
        """From inside the cluster, or by the kubeconfig (KUBECONFIG, else ~/.kube/config)."""
        try:
            config.load_incluster_config()
        except config.ConfigException:
            config.load_kube_config()
        return cls(client.ApiClient(), timeout_s, unlabelled, stops)

    def list_all(self, resource: Resource) -> Iterator[Body] | None:
        """All objects of a resource, page by page: anybody may make many large ones of some. None where the cluster
        doesn't know it, be it for a moment.

        Raises:
            ForbiddenError: This account may not list them.
        """
        call = partial(self._custom.list_cluster_custom_object, resource.group, resource.version, resource.plural)
        bodies = self._paged(call)
        try:
            first = list(islice(bodies, 1))
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                level = logging.DEBUG if resource.optional else logging.WARNING
                log.log(level, "the cluster knows no %s.%s: %s", resource.plural, resource.group, resource.remedy)
                return None
            if error.status == HTTPStatus.FORBIDDEN:
                raise ForbiddenError(_said(error)) from error
            raise
        return chain(first, bodies)

    def get(self, resource: Resource, key: NamespacedName) -> Body | None:
        """One namespaced object; None where there is none."""
        try:
            found = self._custom.get_namespaced_custom_object(
                *_path(resource, key[0]), key[1], _request_timeout=self._timeout_s
            )
        except ApiException as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return cast("Body", found)

    def is_gone(self, resource: Resource, key: NamespacedName) -> bool:
        """Whether the cluster knows the kind and has no object of this name; an API server that starts knows none.

        Raises:
            ApiException: It can't be told now.
        """
        name = f"metadata.name={key[1]}"
        found = self._custom.list_namespaced_custom_object(
            *_path(resource, key[0]), field_selector=name, _request_timeout=self._timeout_s
        )
        return not found["items"]

    def review(self, kind: str, spec: Mapping[str, Any]) -> Body:
        """The status of a TokenReview or SubjectAccessReview; see `joulepath_crds.serving.guard`."""
        api = self._core.api_client
        group, create = {
            "TokenReview": ("authentication", client.AuthenticationV1Api(api).create_token_review),
            "SubjectAccessReview": ("authorization", client.AuthorizationV1Api(api).create_subject_access_review),
        }[kind]
        body = {"apiVersion": f"{group}.k8s.io/v1", "kind": kind, "spec": spec}
        made = create(body, _request_timeout=self._timeout_s)
        return cast("Body", api.sanitize_for_serialization(made)["status"])

    def admission(self, namespace: str) -> Admission:
        """What a namespace says of injection. Where it names no Pod Security level, the cluster's default counts, which
        no API tells."""
        metadata = self._namespace(namespace)
        labels = metadata.get("labels") or {}
        return Admission(
            namespace,
            str(labels.get(POD_SECURITY_LABEL, self._unlabelled)),
            labels.get(INJECTION_LABEL) == Way.VOLUMES,
            first_written(metadata, "labels", INJECTION_LABEL),
        )

    def labels(self, namespace: str) -> Mapping[str, str]:
        """Those of a namespace."""
        return self._namespace(namespace).get("labels") or {}

    def _namespace(self, namespace: str) -> Body:
        """Its metadata."""
        read = self._core.read_namespace(namespace, _request_timeout=self._timeout_s, _preload_content=False)
        return cast("Body", json.loads(read.data)["metadata"])

    @property
    def stops_anything(self) -> bool:
        """Whether there is a ConfigMap for that."""
        return self._stops is not None

    def stops(self) -> dict[str, Stop]:
        """Where injection is stopped, or was."""
        if self._stops is None:
            return {}
        namespace, name = self._stops
        found = self._core.read_namespaced_config_map(name, namespace, _request_timeout=self._timeout_s)
        return read_stops(found.data or {})

    def write_stops(self, changed: Mapping[str, Stop | None]) -> None:
        """Writes those that have changed, and takes out what is None."""
        assert self._stops is not None
        namespace, name = self._stops
        body = {"data": {key: stop.written() if stop else None for key, stop in changed.items()}}
        self._core.patch_namespaced_config_map(name, namespace, body, _request_timeout=self._timeout_s)

    def injecting_namespaces(self) -> list[str]:
        """Those whose label lets the webhook be asked about their pods."""
        call = partial(self._core.list_namespace, label_selector=f"{INJECTION_LABEL}={Way.VOLUMES}")
        return [one["metadata"]["name"] for one in self._paged(call)]

    def job_pods(self, selector: str, namespace: str, *, running: bool) -> Iterator[Body]:
        """The pods of a namespace that a selector finds, page by page: anybody may make many large ones.

        Args:
            selector: By labels.
            namespace: Theirs.
            running: Whether those count that run or have succeeded, too.
        """
        call = partial(self._core.list_namespaced_pod, namespace, label_selector=selector)
        return self._paged(call if running else partial(call, field_selector=_NOT_RUNNING))

    def denials(self, namespace: str, kind: str, reason: str, uid: str | None = None) -> Iterator[Denial]:
        """Of pods that jobs of a kind, or the one of this UID, have asked for, by Events of this reason, within the
        hour that these are kept; page by page."""
        chosen = f"reason={reason},involvedObject.kind={kind}" + (f",involvedObject.uid={uid}" if uid else "")
        for event in self._paged(partial(self._core.list_namespaced_event, namespace, field_selector=chosen)):
            at = event.get("lastTimestamp") or event["metadata"]["creationTimestamp"]
            why = str(event.get("message") or "").removeprefix(_DENIED_PREFIX)
            job = event["involvedObject"]
            yield Denial(job.get("name", ""), at, why[:_LONGEST_EVENT], job.get("uid", ""))

    def _paged(self, call: Callable[..., Any]) -> Iterator[Body]:
        token: str | None = None
        while True:
            # No resourceVersion: at "0" the API server sends all at once, whatever the limit.
            page = call(limit=_PAGE, _continue=token, _request_timeout=self._timeout_s, _preload_content=False)
            body = json.loads(page.data)
            token = body["metadata"].get("continue")
            del page
            yield from body.pop("items")
            if not token:
                return

    def pods(self, namespace: str, selector: str) -> tuple[Body, ...]:
        """The pods that a selector finds."""
        found = self._core.list_namespaced_pod(
            namespace,
            label_selector=selector,
            _request_timeout=self._timeout_s,
            _preload_content=False,  # to make objects of a thousand pods takes seconds
        )
        return tuple(json.loads(found.data)["items"])

    def agent(self, node: str) -> tuple[str | None, bool]:
        """The pod of a node's agent as NAMESPACE/NAME, and whether it is ready; None where there is none."""
        pods = self._core.list_pod_for_all_namespaces(
            label_selector=AGENT_PODS, field_selector=f"spec.nodeName={node}", _request_timeout=self._timeout_s
        )
        if not pods.items:
            return None, False
        pod = pods.items[0]
        ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or ())
        return f"{pod.metadata.namespace}/{pod.metadata.name}", ready

    def write_status(self, energy_plan: Body, status: EnergyPlanStatus) -> Body:
        """Replaces the status of an EnergyPlan as it was read; the EnergyPlan as it is then."""
        metadata = energy_plan["metadata"]
        return self._write(
            self._custom.replace_namespaced_custom_object_status,
            *_path(ENERGY_PLANS, metadata["namespace"]),
            metadata["name"],
            {**energy_plan, "status": status.to_api()},
        )

    def write_plan(self, energy_plan: Body, plan: StoredPlan) -> Body:
        """Creates or replaces a JobPlan, owned by its EnergyPlan; nothing waits for its deletion.

        Raises:
            ConflictError: It has changed since it was read.
            UnacceptableError: The API server doesn't take it, or drops a part of it.
        """
        owner = energy_plan["metadata"]
        metadata = {
            "annotations": {
                INPUTS_ANNOTATION: plan.inputs,
                BEGINS_ANNOTATION: json.dumps(Begins.of(plan.spec).to_api()),
            },
            "labels": {JOB_UID_LABEL: plan.spec.job_uid},
            "ownerReferences": [
                {
                    "apiVersion": ENERGY_PLANS.api_version,
                    "kind": ENERGY_PLANS.kind,
                    "name": owner["name"],
                    "uid": owner["uid"],
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        }
        written = self._put(JOB_PLANS, owner["namespace"], plan, metadata)
        if content_hash(written["spec"]) != plan.spec.hash:  # no agent would play it
            raise UnacceptableError(f"JobPlan {plan.name} is not stored as it was written")
        return written

    def notify(self, plan: Body, notice: Notice) -> None:
        """Writes an Event at an EnergyPlan; the status says the same, so that one that is lost is only logged."""
        metadata, now = plan["metadata"], datetime.now(UTC).isoformat(timespec="seconds")
        told = {"kind": ENERGY_PLANS.kind, "apiVersion": ENERGY_PLANS.api_version}
        event = {
            "metadata": {"generateName": f"{metadata['name'][:240]}.", "namespace": metadata["namespace"]},
            "involvedObject": told | {key: metadata.get(key) for key in ("namespace", "name", "uid")},
            "type": "Warning",
            "reason": notice.reason,
            "message": notice.message[:_LONGEST_EVENT],
            "source": {"component": "joulepath-operator"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._core.create_namespaced_event(metadata["namespace"], event, _request_timeout=self._timeout_s)
        except ApiException as error:
            log.warning("an event at %s can't be written: %s", metadata["name"], _said(error))

    def write_profile(self, namespace: str, profile: StoredProfile) -> Body:
        """Creates or replaces an EnergyProfile. Nobody owns it: it outlives the job."""
        metadata = {"labels": {JOB_UID_LABEL: profile.job_uid}}
        return self._put(ENERGY_PROFILES, namespace, profile, metadata)

    def delete_plan(self, namespace: str, name: str, version: str | None = None) -> None:
        """Deletes a JobPlan, if it is there; only this version of it, if one is given.

        Raises:
            ConflictError: It is another version.
        """
        only = client.V1DeleteOptions(preconditions=client.V1Preconditions(resource_version=version))
        try:
            self._custom.delete_namespaced_custom_object(
                *_path(JOB_PLANS, namespace),
                name,
                **({"body": only} if version is not None else {}),
                _request_timeout=self._timeout_s,
            )
        except ApiException as error:
            if error.status == HTTPStatus.CONFLICT:
                raise ConflictError(error.reason) from error
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def _put(
        self, resource: Resource, namespace: str, stored: StoredPlan | StoredProfile, metadata: Mapping[str, Any]
    ) -> Body:
        body: Body = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": stored.name, "namespace": namespace, **metadata},
            "spec": stored.spec.to_api(),
        }
        where = _path(resource, namespace)
        if stored.version is None:
            return self._write(self._custom.create_namespaced_custom_object, *where, body)
        body["metadata"]["resourceVersion"] = stored.version
        return self._write(self._custom.replace_namespaced_custom_object, *where, stored.name, body)

    def _write(self, call: Any, *arguments: Any) -> Body:
        try:
            return cast("Body", call(*arguments, _request_timeout=self._timeout_s))
        except ApiException as error:
            if error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise ConflictError(error.reason) from error
            if error.status in _UNACCEPTABLE or _TOO_LARGE in str(error.body):
                raise UnacceptableError(_said(error)) from error
            raise


def _said(error: ApiException) -> str:
    """The message of a Status, or whatever the server said."""
    try:
        return str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)


def _path(resource: Resource, namespace: str) -> tuple[str, str, str, str]:
    return resource.group, resource.version, namespace, resource.plural
