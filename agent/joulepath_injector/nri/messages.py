"""What calls carry, as far as it is needed here.

Messages are declared instead of generated; names and numbers of the fields are those of ttrpc's request.proto and of
NRI's pkg/api/api.proto. Fields that aren't declared are skipped, as protobuf allows. What tenants have written, and as
much of it as they like, is left behind here but for the little that anybody looks at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from joulepath_injector.places import PYTHON_PATH, in_the_way
from joulepath_rules import JOB_LABELS, lexical

__all__ = ["TYPES", "Adjustment", "Container", "Mount", "Pod", "adjusted", "being_made", "pod", "there"]

_LONGEST_NAME: Final = 253
"""The API server allows no longer name, UID or label."""
_LONGEST_PATH: Final = 512
"""Ours are shorter, and others are only shown."""
_LONGEST_VARIABLE: Final = 128 * 1024
"""No process is begun with a longer one."""
_LONGEST_LOOK: Final = 256
"""Of a variable of a container that is there: the trainer's is in front of it, or not in it."""
_MOST_VARIABLES: Final = 2
"""Two of a name are as bad as more."""
_MOST_MOUNTS: Final = 4
"""Ours are two, and one that is in their way is enough."""

_PACKAGE: Final = "nri"
_MESSAGES: Final[dict[str, tuple[tuple[str, int, str], ...]]] = {
    # ttrpc
    "Request": (
        ("service", 1, "string"),
        ("method", 2, "string"),
        ("payload", 3, "bytes"),
        ("timeout_nano", 4, "int64"),
    ),
    "Status": (("code", 1, "int32"), ("message", 2, "string")),
    "Response": (("status", 1, "Status"), ("payload", 2, "bytes")),
    # Plugin and runtime
    "RegisterPluginRequest": (("plugin_name", 1, "string"), ("plugin_idx", 2, "string")),
    "ConfigureRequest": (("runtime_name", 2, "string"), ("runtime_version", 3, "string")),
    "ConfigureResponse": (("events", 2, "int32"),),
    "SynchronizeRequest": (("pods", 1, "*PodSandbox"), ("containers", 2, "*Container"), ("more", 3, "bool")),
    "SynchronizeResponse": (("more", 2, "bool"),),
    "PodSandboxRequest": (("pod", 1, "PodSandbox"),),  # RunPodSandboxRequest, StopPodSandboxRequest and so on
    "ContainerRequest": (("pod", 1, "PodSandbox"), ("container", 2, "Container")),  # Create-, StopContainerRequest
    "CreateContainerResponse": (("adjust", 1, "ContainerAdjustment"),),
    "StateChangeEvent": (("event", 1, "int32"), ("pod", 2, "PodSandbox")),
    # What is there
    "PodSandbox": (
        ("id", 1, "string"),
        ("name", 2, "string"),
        ("uid", 3, "string"),
        ("namespace", 4, "string"),
        ("labels", 5, "*KeyValue"),  # a map is such a list
        ("linux", 8, "LinuxPodSandbox"),
    ),
    "LinuxPodSandbox": (("namespaces", 5, "*LinuxNamespace"),),
    "Container": (
        ("id", 1, "string"),
        ("pod_sandbox_id", 2, "string"),
        ("name", 3, "string"),
        ("env", 8, "*string"),
        ("mounts", 9, "*Mount"),
        ("linux", 11, "LinuxContainer"),
    ),
    "LinuxContainer": (("namespaces", 1, "*LinuxNamespace"),),
    "LinuxNamespace": (("type", 1, "string"),),
    "Mount": (("destination", 1, "string"), ("type", 2, "string"), ("source", 3, "string"), ("options", 4, "*string")),
    # What is to be added
    "ContainerAdjustment": (("mounts", 3, "*Mount"), ("env", 4, "*KeyValue")),
    "KeyValue": (("key", 1, "string"), ("value", 2, "string")),
}


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod's sandbox; a pod whose sandbox has died gets another one."""

    sandbox: str
    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those by which a pod's job is known."""
    user_namespace: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of the node, in a container."""

    destination: str
    source: str


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is being made, or is there."""

    sandbox: str
    name: str
    env: tuple[str, ...] = ()
    """Each `PYTHONPATH=VALUE`, the image's own among them."""
    mounts: tuple[Mount, ...] = ()
    """Those in the way of ours, and ours."""
    user_namespace: bool = False
    id: str = ""
    """Of this one: one that is started anew is another."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What a container is to have besides."""

    mounts: tuple[Mount, ...]
    """Read-only."""
    env: Mapping[str, str]
    """In the place of its own of the same name."""


def pod(message: Any) -> Pod:
    """As it stands in a request."""
    return Pod(
        _name(message.id),
        _name(message.uid),
        _name(message.namespace),
        _name(message.name),
        {one.key: _name(one.value) for one in message.labels if one.key in JOB_LABELS},
        _user_namespace(message.linux),
    )


def being_made(message: Any) -> Container:
    """One that is to get the trainer, maybe."""
    return _container(message, _LONGEST_VARIABLE)


def there(message: Any) -> Container:
    """One that has the trainer, or won't have it; there may be thousands."""
    return _container(message, _LONGEST_LOOK)


def _container(message: Any, longest: int) -> Container:
    env = [one[:longest] for one in message.env if one.startswith(f"{PYTHON_PATH}=")]
    mounts = [
        Mount(lexical(one.destination)[:_LONGEST_PATH], one.source[:_LONGEST_PATH])
        for one in message.mounts
        if in_the_way(one.destination)
    ]
    return Container(
        _name(message.pod_sandbox_id),
        _name(message.name),
        tuple(env[-_MOST_VARIABLES:]),
        tuple(mounts[:_MOST_MOUNTS]),
        _user_namespace(message.linux),
        _name(message.id),
    )


def adjusted(adjustment: Adjustment) -> bytes:
    """The answer that adds this.

    A variable is taken away first (`-NAME`): where another plugin has set it before, setting it again is an error, and
    an error keeps the container from being made.
    """
    response = TYPES["CreateContainerResponse"]()
    for mount in adjustment.mounts:
        response.adjust.mounts.add(
            destination=mount.destination,
            type="bind",
            source=mount.source,
            options=["rbind", "rprivate", "ro", "nosuid", "nodev"],
        )
    for name, value in adjustment.env.items():
        response.adjust.env.add(key=f"-{name}")
        response.adjust.env.add(key=name, value=value)
    return bytes(response.SerializeToString())


def _name(text: str) -> str:
    return text[:_LONGEST_NAME]


def _user_namespace(linux: Any) -> bool:
    return any(one.type == "user" for one in linux.namespaces)


def _declare() -> dict[str, Any]:
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="nri.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field_name, number, kind in fields:
            bare = kind.removeprefix("*")
            one = message.field.add(name=field_name, number=number)
            one.label = kinds.LABEL_OPTIONAL if kind == bare else kinds.LABEL_REPEATED
            if bare in _MESSAGES:
                one.type, one.type_name = kinds.TYPE_MESSAGE, f".{_PACKAGE}.{bare}"
            else:
                one.type = kinds.Type.Value(f"TYPE_{bare.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    find = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(find(f"{_PACKAGE}.{name}")) for name in _MESSAGES}


TYPES: Final = _declare()
"""The messages, by name."""
