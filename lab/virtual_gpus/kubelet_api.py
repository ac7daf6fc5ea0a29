"""The few protobuf messages of the kubelet's plugins, declared in Python instead of generated.

Names and numbers of the fields are those of k8s.io/kubelet/pkg/apis: deviceplugin/v1beta1, pluginregistration/v1 and
dra/v1, each its api.proto; fields that nobody here reads or writes are left out, as protobuf allows.
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
    "NodePrepareResourceResponse",
    "NodePrepareResourcesResponse",
    "NodeResourcesRequest",
    "NodeUnprepareResourceResponse",
    "NodeUnprepareResourcesResponse",
    "PluginInfo",
    "PreparedDevice",
    "RegisterRequest",
]


_Field = descriptor_pb2.FieldDescriptorProto
_TYPES: Final = {"string": _Field.TYPE_STRING, "bool": _Field.TYPE_BOOL}
_MAP: Final = "map<string,"
_Messages = dict[str, list[tuple[str, int, str]]]

# message -> (field, number, type); a type starting with * is repeated
_DEVICE_PLUGIN: Final[_Messages] = {
    "Empty": [],
    "DevicePluginOptions": [("pre_start_required", 1, "bool"), ("get_preferred_allocation_available", 2, "bool")],
    "RegisterRequest": [("version", 1, "string"), ("endpoint", 2, "string"), ("resource_name", 3, "string")],
    "Device": [("ID", 1, "string"), ("health", 2, "string")],
    "ListAndWatchResponse": [("devices", 1, "*Device")],
    "ContainerAllocateRequest": [("devices_ids", 1, "*string")],
    "AllocateRequest": [("container_requests", 1, "*ContainerAllocateRequest")],
    "Mount": [("container_path", 1, "string"), ("host_path", 2, "string"), ("read_only", 3, "bool")],
    "ContainerAllocateResponse": [("envs", 1, "map<string,string>"), ("mounts", 2, "*Mount")],
    "AllocateResponse": [("container_responses", 1, "*ContainerAllocateResponse")],
}
_REGISTRATION: Final[_Messages] = {
    "PluginInfo": [
        ("type", 1, "string"),
        ("name", 2, "string"),
        ("endpoint", 3, "string"),
        ("supported_versions", 4, "*string"),
    ],
}
_DRA: Final[_Messages] = {
    "Claim": [("namespace", 1, "string"), ("uid", 2, "string"), ("name", 3, "string")],
    "NodeResourcesRequest": [("claims", 1, "*Claim")],
    "Device": [
        ("request_names", 1, "*string"),
        ("pool_name", 2, "string"),
        ("device_name", 3, "string"),
        ("cdi_device_ids", 4, "*string"),
    ],
    "NodePrepareResourceResponse": [("devices", 1, "*Device"), ("error", 2, "string")],
    "NodePrepareResourcesResponse": [("claims", 1, "map<string,NodePrepareResourceResponse>")],
    "NodeUnprepareResourceResponse": [("error", 1, "string")],
    "NodeUnprepareResourcesResponse": [("claims", 1, "map<string,NodeUnprepareResourceResponse>")],
}


def _declare(package: str, message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str) -> None:
    is_map = kind.startswith(_MAP)
    field = message.field.add(name=name, number=number)
    field.label = _Field.LABEL_REPEATED if is_map or kind.startswith("*") else _Field.LABEL_OPTIONAL
    if is_map:
        entry = message.nested_type.add(name=f"{name.capitalize()}Entry")
        entry.options.map_entry = True
        _declare(package, entry, "key", 1, "string")
        _declare(package, entry, "value", 2, kind.removeprefix(_MAP).removesuffix(">"))
        kind = f"{message.name}.{entry.name}"
    kind = kind.removeprefix("*")
    if scalar := _TYPES.get(kind):
        field.type = scalar
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{package}.{kind}"


def _classes(package: str, messages: _Messages) -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"kubelet_{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for field in fields:
            _declare(package, message, *field)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{n}")) for n in messages}


_made = _classes("v1beta1", _DEVICE_PLUGIN)
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

PluginInfo: Any = _classes("pluginregistration", _REGISTRATION)["PluginInfo"]

_made_of_dra = _classes("k8s.io.kubelet.pkg.apis.dra.v1", _DRA)
NodeResourcesRequest: Any = _made_of_dra["NodeResourcesRequest"]
PreparedDevice: Any = _made_of_dra["Device"]
NodePrepareResourceResponse: Any = _made_of_dra["NodePrepareResourceResponse"]
NodePrepareResourcesResponse: Any = _made_of_dra["NodePrepareResourcesResponse"]
NodeUnprepareResourceResponse: Any = _made_of_dra["NodeUnprepareResourceResponse"]
NodeUnprepareResourcesResponse: Any = _made_of_dra["NodeUnprepareResourcesResponse"]
