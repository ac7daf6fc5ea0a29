"""The few protobuf messages of the kubelet's deviceplugin v1beta1, declared in Python instead of generated.

Names and numbers of the fields are those of k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1/api.proto; fields that
nobody here reads or writes are left out, as protobuf allows.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

__all__ = [
    "AllocateRequest",
    "AllocateResponse",
    "ContainerAllocateRequest",
    "ContainerAllocateResponse",
    "Device",
    "DevicePluginOptions",
    "Empty",
    "ListAndWatchResponse",
    "Mount",
    "RegisterRequest",
]


_Field = descriptor_pb2.FieldDescriptorProto
_PACKAGE: Final = "v1beta1"
_TYPES: Final = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}
_MAP: Final = "map<string,string>"

# message -> (field, number, type); a type starting with * is repeated
_MESSAGES: Final[dict[str, list[tuple[str, int, str]]]] = {
    "Empty": [],
    "DevicePluginOptions": [("pre_start_required", 1, "bool"), ("get_preferred_allocation_available", 2, "bool")],
    "RegisterRequest": [("version", 1, "string"), ("endpoint", 2, "string"), ("resource_name", 3, "string")],
    "Device": [("ID", 1, "string"), ("health", 2, "string")],
    "ListAndWatchResponse": [("devices", 1, "*Device")],
    "ContainerAllocateRequest": [("devices_ids", 1, "*string")],
    "AllocateRequest": [("container_requests", 1, "*ContainerAllocateRequest")],
    "Mount": [("container_path", 1, "string"), ("host_path", 2, "string"), ("read_only", 3, "bool")],
    "ContainerAllocateResponse": [("envs", 1, _MAP), ("mounts", 2, "*Mount")],
    "AllocateResponse": [("container_responses", 1, "*ContainerAllocateResponse")],
}


def _declare(message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    repeated = kind.startswith("*") or kind == _MAP
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    if kind == _MAP:
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _declare(entry, "key", 1, "string")
        _declare(entry, "value", 2, "string")
        kind = f"{message.name}.{entry.name}"
    kind = kind.removeprefix("*")
    if scalar := _TYPES.get(kind):
        field.type = scalar
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="kubelet_deviceplugin.proto", package=_PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _declare(message, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{n}")) for n in _MESSAGES}


_made = _classes()
Empty: Any = _made["Empty"]
DevicePluginOptions: Any = _made["DevicePluginOptions"]
RegisterRequest: Any = _made["RegisterRequest"]
Device: Any = _made["Device"]
ListAndWatchResponse: Any = _made["ListAndWatchResponse"]
AllocateRequest: Any = _made["AllocateRequest"]
ContainerAllocateRequest: Any = _made["ContainerAllocateRequest"]
Mount: Any = _made["Mount"]
ContainerAllocateResponse: Any = _made["ContainerAllocateResponse"]
AllocateResponse: Any = _made["AllocateResponse"]
