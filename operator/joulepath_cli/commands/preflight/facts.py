"""What was read of a cluster, as values; what couldn't be read stands in its place, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["DRA_DRIVER", "Facts", "Node", "Pod", "Report", "Slice", "Unread", "node", "pod", "report", "resource_slice"]

DRA_DRIVER: Final = "gpu.nvidia.com"
_COMPONENT: Final = "app.kubernetes.io/component"
_PARTS: Final = ("operator", "webhook", "agent")
Body = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unread:
    """What the API server doesn't tell."""

    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node."""

    name: str
    labels: Mapping[str, str]
    resources: Mapping[str, int]
    """How many of each of NVIDIA's resources it offers."""
    runtime: str
    """As its kubelet writes it: `containerd://2.1.4`."""
    kernel: str
    os: str
    architecture: str
    image: str
    """Name of its operating system."""


@dataclass(frozen=True, slots=True)
class Slice:
    """What the DRA driver of NVIDIA offers on a node."""

    node: str
    gpus: int
    instances: int
    """Of MIG."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of Joulepath."""

    name: str
    component: str
    node: str
    phase: str
    ready: bool
    containers: tuple[str, ...]
    host_pid: bool


@dataclass(frozen=True, slots=True)
class Report:
    """What an agent says of its node."""

    node: str
    gpus: int
    refused: tuple[str, ...]
    """Why GPUs of it are left alone."""
    switched: int
    """GPUs whose clock was set and looked at, by the doctor or by the agent."""
    injections: int
    """Containers that its injector was shown by the container runtime."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was read."""

    namespace: str
    """Joulepath's."""
    version: str | Unread
    """Of the API server."""
    kinds: Mapping[str, frozenset[str] | Unread]
    """By API group: `VERSION/PLURAL` of what is served; nothing for a group that isn't there."""
    nodes: tuple[Node, ...] | Unread
    slices: tuple[Slice, ...] | Unread
    namespaces: Mapping[str, Mapping[str, str]] | Unread
    """Labels by name."""
    pods: tuple[Pod, ...] | Unread
    """Joulepath's own, in its namespace."""
    reports: tuple[Report, ...] | Unread

    @property
    def agents(self) -> tuple[Pod, ...]:
        """The agents' pods, as far as they could be read."""
        return () if isinstance(self.pods, Unread) else tuple(one for one in self.pods if one.component == "agent")

    @property
    def installed(self) -> bool:
        """Whether pods of Joulepath's are seen."""
        return not isinstance(self.pods, Unread) and any(one.component in _PARTS for one in self.pods)


def node(body: Body) -> Node:
    """A Node of the API."""
    metadata, status = _under(body, "metadata"), _under(body, "status")
    told = _under(status, "nodeInfo")
    return Node(
        name=str(metadata.get("name")),
        labels=_under(metadata, "labels"),
        resources={
            name: int(amount)
            for name, amount in _under(status, "allocatable").items()
            if name.startswith("nvidia.com/") and str(amount).isdecimal() and int(amount)
        },
        runtime=str(told.get("containerRuntimeVersion", "")),
        kernel=str(told.get("kernelVersion", "")),
        os=str(told.get("operatingSystem", "")),
        architecture=str(told.get("architecture", "")),
        image=str(told.get("osImage", "")),
    )


def resource_slice(body: Body) -> Slice | None:
    """A ResourceSlice of the API; None if it is another driver's, or no node's own."""
    spec = _under(body, "spec")
    if spec.get("driver") != DRA_DRIVER or not spec.get("nodeName"):
        return None
    devices = [str(one.get("name")) for one in _list(spec, "devices")]
    instances = sum("-mig-" in name for name in devices)
    return Slice(str(spec["nodeName"]), sum(name.startswith("gpu-") for name in devices) - instances, instances)


def pod(body: Body) -> Pod:
    """A Pod of the API."""
    metadata, spec, status = _under(body, "metadata"), _under(body, "spec"), _under(body, "status")
    return Pod(
        name=str(metadata.get("name")),
        component=str(_under(metadata, "labels").get(_COMPONENT, "")),
        node=str(spec.get("nodeName", "")),
        phase=str(status.get("phase", "")),
        ready=any(one.get("type") == "Ready" and one.get("status") == "True" for one in _list(status, "conditions")),
        containers=tuple(str(one.get("name")) for one in _list(spec, "containers")),
        host_pid=bool(spec.get("hostPID")),
    )


def report(body: Body) -> Report:
    """A NodeReport of the API. Of whatever release: what it doesn't have isn't asked for."""
    status = _under(body, "status")
    gpus = _list(status, "gpus")
    return Report(
        node=str(_under(body, "metadata").get("name")),
        gpus=len(gpus),
        refused=tuple(str(one["refused"]) for one in gpus if one.get("refused")),
        switched=sum(bool(one.get("lag")) for one in gpus),
        injections=len(_list(status, "injection")),
    )


def _under(body: Body, key: str) -> Body:
    found = body.get(key)
    return found if isinstance(found, dict) else {}


def _list(body: Body, key: str) -> Sequence[Body]:
    found = body.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
