"""The init containers that a training pod gets, what they run and what they ask for.

One copies the trainer's files to a volume. A `PYTHONPATH` in a pod's spec hides the one of the image's own ENV, so for
each container that gets ours another runs the user's image and writes that value down. Neither keeps a pod from
starting: what fails in them is no reason not to train.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kubernetes.utils.quantity import parse_quantity

__all__ = ["FILES", "FILLER", "VOLUME", "filler", "path_file", "path_reader", "path_reader_name"]

FILES: Final = "/joulepath"
"""Where the trainer's files are: in its image, and in the user's containers."""
VOLUME: Final = "joulepath"
FILLER: Final = "joulepath-trainer"
_FILLING: Final = "/joulepath-volume"
_BUSYBOX: Final = f"{FILES}/busybox"
_NOBODY: Final = 65532
_SHARED_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
"""What an init container asks for as its training container does; never GPUs, claims of devices or huge pages."""


def filler(image: str, pull_policy: str, container: Mapping[str, Any]) -> dict[str, Any]:
    """Copies the trainer's files from its image to the volume."""
    return {
        "name": FILLER,
        "image": image,
        "imagePullPolicy": pull_policy,
        "command": [_BUSYBOX, "sh", "-c", f"{_BUSYBOX} cp -r {FILES}/. {_FILLING}/ || true"],
        "resources": _resources(container),
        "securityContext": _restricted({"runAsUser": _NOBODY, "runAsGroup": _NOBODY, "runAsNonRoot": True}),
        "volumeMounts": [{"name": VOLUME, "mountPath": _FILLING}],
    }


def path_reader(name: str, container: Mapping[str, Any]) -> dict[str, Any]:
    """Writes down the PYTHONPATH that the container would have without us: of its image, or by its envFrom."""
    own = container.get("securityContext") or {}
    user = {field: own[field] for field in ("runAsUser", "runAsGroup", "runAsNonRoot") if field in own}
    reader = {
        "name": name,
        "image": container["image"],
        # Images for GPUs ask for all of them; this one needs none, and a broken GPU would keep it from starting.
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
        "command": [_BUSYBOX, "sh", "-c", f'printf %s "$PYTHONPATH" > {path_file(container)} || true'],
        "resources": _resources(container),
        "securityContext": _restricted(user),
        "volumeMounts": [{"name": VOLUME, "mountPath": FILES}],
    }
    return reader | {field: container[field] for field in ("imagePullPolicy", "envFrom") if field in container}


def path_reader_name(index: int) -> str:
    """Of the one for the pod's training container of this index that has no PYTHONPATH of its own."""
    return "joulepath-pythonpath" + (f"-{index}" if index else "")


def path_file(container: Mapping[str, Any]) -> str:
    """Where the PYTHONPATH of a container's image is written down."""
    return f"{FILES}/pythonpath-{container['name']}"


def _resources(container: Mapping[str, Any]) -> dict[str, Any]:
    """What the training container asks for itself, GPUs apart: whatever lets that one in, a LimitRange's greatest, a
    quota, a QoS class, lets this one in too. The pod's own request doesn't grow: it is the larger of what its init
    containers need one by one and what its containers need together.

    CPUs that could be exclusive are the exception: the kubelet's static CPU manager gives them to any container of a
    Guaranteed pod that asks for a whole number, to ours without a GPU and so on any NUMA node, and then starts the
    training container only where it can use them again: under the topology policy single-numa-node perhaps nowhere
    (TopologyAffinityError). So ours asks for a millicore less, as request and as limit, and runs in the shared pool.
    A LimitRange whose least CPU per container is just the training container's would refuse the pod; we know of none.
    """
    own = container.get("resources") or {}
    shared = {
        side: {name: own[side][name] for name in _SHARED_RESOURCES if name in own[side]}
        for side in ("requests", "limits")
        if own.get(side)
    }
    if (cpu := _exclusive_millicores(shared)) is not None:
        for amounts in shared.values():
            amounts |= {"cpu": f"{cpu - 1}m"} if "cpu" in amounts else {}
    return {side: amounts for side, amounts in shared.items() if amounts}


def _exclusive_millicores(resources: Mapping[str, Mapping[str, Any]]) -> int | None:
    """The CPUs that a Guaranteed pod's container would have to itself; None where request and limit differ, of which a
    LimitRange may ask a ratio that mustn't change."""
    limit = resources.get("limits", {}).get("cpu")
    if limit is None:  # Burstable
        return None
    cpu = parse_quantity(limit)
    if cpu <= 0 or cpu % 1 or parse_quantity(resources.get("requests", {}).get("cpu", limit)) != cpu:
        return None
    return int(cpu) * 1000


def _restricted(user: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
