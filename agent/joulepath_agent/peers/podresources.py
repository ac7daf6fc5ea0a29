"""Which devices containers hold: the kubelet's pod-resources API (v1, gRPC over a unix socket of the node).

The request is empty. The few messages that are needed are declared here instead of generated; names and numbers of the
fields are those of k8s.io/kubelet/pkg/apis/podresources/v1/api.proto. Fields that aren't declared are skipped, as
protobuf allows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from joulepath_agent.peers.unary import CallError, call

__all__ = ["TYPES", "Held", "PodResourcesError", "held_devices"]

_PACKAGE: Final = "v1"
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    "ContainerDevices": (("resource_name", 1, "string"), ("device_ids", 2, "*string")),
    "ClaimResource": (("driver_name", 2, "string"), ("device_name", 4, "string"), ("share_id", 5, "string")),
    "DynamicResource": (("claim_resources", 4, "*ClaimResource"),),
    "ContainerResources": (
        ("name", 1, "string"),
        ("devices", 2, "*ContainerDevices"),
        ("dynamic_resources", 5, "*DynamicResource"),
    ),
    "PodResources": (("name", 1, "string"), ("namespace", 2, "string"), ("containers", 3, "*ContainerResources")),
    "ListPodResourcesResponse": (("pod_resources", 1, "*PodResources"),),
}
_MOST_BYTES: Final = 16 * 1024 * 1024
_TIMEOUT_S: Final = 5.0


class PodResourcesError(RuntimeError):
    """The kubelet doesn't answer."""


@dataclass(frozen=True, slots=True)
class Held:
    """A device that a container was given."""

    namespace: str
    pod: str
    container: str
    resource: str
    """Of a claim (DRA): the driver."""
    device: str
    """As its plugin or driver calls it; a share of a DRA device is `NAME::SHARE`, as NVIDIA's plugin has it."""


def held_devices(socket_path: Path) -> tuple[Held, ...]:
    """All devices that containers hold; pods that have ended may still be among them.

    Raises:
        PodResourcesError: The kubelet doesn't answer.
    """
    try:
        answer = call(socket_path, "/v1.PodResourcesLister/List", b"", timeout_s=_TIMEOUT_S, most_bytes=_MOST_BYTES)
        response = TYPES["ListPodResourcesResponse"].FromString(answer)
    except (CallError, DecodeError) as error:
        raise PodResourcesError(f"the kubelet doesn't answer at {socket_path}: {error}") from None
    return tuple(
        Held(pod.namespace, pod.name, container.name, resource, device)
        for pod in response.pod_resources
        for container in pod.containers
        for resource, device in _devices(container)
    )


def _devices(container: Any) -> Iterator[tuple[str, str]]:
    for devices in container.devices:
        for device in devices.device_ids:
            yield devices.resource_name, device
    for dynamic in container.dynamic_resources:
        for claim in dynamic.claim_resources:
            share = f"::{claim.share_id}" if claim.share_id else ""
            yield claim.driver_name, f"{claim.device_name}{share}"


def _declare() -> dict[str, Any]:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="podresources.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            field = message.field.add(name=field_name, number=number)
            field.label = kinds.LABEL_REPEATED if kind.startswith("*") else kinds.LABEL_OPTIONAL
            bare = kind.removeprefix("*")
            if bare == "string":
                field.type = kinds.TYPE_STRING
            else:
                field.type, field.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{bare}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


TYPES: Final = _declare()
"""The messages, by name."""
