"""What a device is that the kubelet gave to a container: a GPU of the node, or a share or an instance of one.

The kubelet knows devices by whatever their plugin calls them. Read in the plugins' sources, in 2026:

- NVIDIA/k8s-device-plugin (`internal/rm/devices.go`): the UUID, whatever `DEVICE_ID_STRATEGY` says (that is what the
  container sees in NVIDIA_VISIBLE_DEVICES). Replicas of time-slicing and MPS are `UUID::n`, their resource may be
  renamed to end in `.shared`. MIG instances are `MIG-UUID`, before the driver R470 `MIG-GPU-UUID/instance/instance`.
- GoogleCloudPlatform/container-engine-accelerators (`pkg/gpu/nvidia/manager.go`, `mig/`, `gpusharing/`): `nvidiaN` by
  the minor number N, `nvidiaN/giM` for MIG, either with `/vgpuK` where GPUs are shared.
- NVIDIA/k8s-dra-driver-gpu (`cmd/gpu-kubelet-plugin/deviceinfo.go`, `mig.go`): devices of the driver `gpu.nvidia.com`
  are `gpu-N` by the minor number (by the index before v25.3.0), MIG instances `gpu-N-mig-PROFILE-ID-PLACEMENT`.

Which resources count: an UUID is a GPU's, whatever its resource is called. Names that are numbers count for the
resources `nvidia.com/...` (both plugins rename within that prefix only) and that DRA driver. A number alone may be the
index or the minor number: it is believed where both are one GPU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["Grant", "NodeGpu", "granted"]

_DRA_DRIVER: Final = "gpu.nvidia.com"
_REPLICA: Final = re.compile(r"(?P<base>.+?)(?:::.*|/vgpu\d+)")
_OLD_INSTANCE: Final = re.compile(r"MIG-(?P<uuid>GPU-[^/]+)/\d+/\d+")
_INSTANCE: Final = re.compile(r"MIG-(?P<uuid>[0-9a-f-]+)")
_BY_MINOR: Final = re.compile(r"nvidia(?P<minor>\d+)(?P<instance>/gi\d+)?")
_OF_DRA: Final = re.compile(r"gpu-(?P<minor>\d+)(?P<instance>-mig-.+)?")


@dataclass(frozen=True, slots=True)
class NodeGpu:
    """A GPU by all its names."""

    uuid: str
    index: int
    """In NVML's order, that of the bus."""
    minor: int | None
    """Of /dev/nvidiaN, in the order in which the driver found them; None where NVML doesn't tell."""
    mig: bool


@dataclass(frozen=True, slots=True)
class Grant:
    """What a container has of a GPU."""

    uuid: str
    """Of a MIG instance whose GPU isn't named: its own, as CUDA writes it, `GPU-...`."""
    code: str = ""
    """Why nobody may set its clock, in a word; empty if whoever has the whole GPU may."""
    why: str = ""


def granted(resource: str, device: str, gpus: Iterable[NodeGpu]) -> tuple[Grant, ...]:
    """What a device is.

    Args:
        resource: Name of the resource, or of the DRA driver.
        device: Its id; a share of a DRA device is written `NAME::SHARE`.
        gpus: The GPUs of the node.

    Returns:
        Nothing if it is no GPU of the node; more than one if it can't be told which.
    """
    gpus = tuple(gpus)
    replica = _REPLICA.fullmatch(device)
    grants = _named(resource, replica["base"] if replica else device, gpus)
    if replica or resource.endswith(".shared"):
        return tuple(_shared(grant, device) if grant.code != "MigGpu" else grant for grant in grants)
    return grants


def _named(resource: str, device: str, gpus: Sequence[NodeGpu]) -> tuple[Grant, ...]:
    if (old := _OLD_INSTANCE.fullmatch(device)) is not None:
        return (_instance(old["uuid"], device),)
    if (new := _INSTANCE.fullmatch(device)) is not None:
        return (_instance(f"GPU-{new['uuid']}", device),)
    for gpu in gpus:
        if device == gpu.uuid:
            return (_whole(gpu),)
        if device.startswith(gpu.uuid):  # a form that isn't known: part of a GPU, in all that were seen
            return (_shared(_whole(gpu), device),)
    if resource == _DRA_DRIVER:
        return _by_minor(_OF_DRA.fullmatch(device), device, gpus)
    if not resource.startswith("nvidia.com/"):
        return ()
    if device.isdecimal():
        return _by_number(int(device), device, gpus)
    return _by_minor(_BY_MINOR.fullmatch(device), device, gpus)


def _by_minor(name: re.Match[str] | None, device: str, gpus: Sequence[NodeGpu]) -> tuple[Grant, ...]:
    if name is None:
        return ()
    found = (gpu for gpu in gpus if gpu.minor == int(name["minor"]))
    return tuple(_instance(gpu.uuid, device) if name["instance"] else _whole(gpu) for gpu in found)


def _by_number(number: int, device: str, gpus: Sequence[NodeGpu]) -> tuple[Grant, ...]:
    found = tuple(gpu for gpu in gpus if number in (gpu.index, gpu.minor))
    if len(found) == 1 and found[0].index == found[0].minor:
        return (_whole(found[0]),)
    why = f"device {device} may be the GPU of that index or of that minor number, which aren't the same here"
    return tuple(Grant(gpu.uuid, "AmbiguousGpu", f"{why}: use a device plugin that names UUIDs") for gpu in found)


def _whole(gpu: NodeGpu) -> Grant:
    return _instance(gpu.uuid, gpu.uuid) if gpu.mig else Grant(gpu.uuid)


def _instance(uuid: str, device: str) -> Grant:
    why = f"{device} is in MIG mode: a clock is the whole GPU's, so a plan for one instance would slow the others"
    return Grant(uuid, "MigGpu", why)


def _shared(grant: Grant, device: str) -> Grant:
    why = f"{device} is a share of a GPU (time-slicing or MPS): a clock is the whole GPU's, so a plan for one pod would"
    return replace(grant, code="SharedGpu", why=f"{why} slow the others")
