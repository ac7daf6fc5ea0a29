"""The init container that a training pod gets where a `PYTHONPATH` of its image would be hidden by ours.

It runs the user's own image, which the pod waits for anyway, by a busybox of the node, and writes that value down.
What it asks for, runs as and is denied is what the training container is: whatever lets that one in lets this one in.
Its command can't fail; what keeps it from being begun is seen by `breaker`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kubernetes.utils.quantity import parse_quantity

__all__ = ["BUSYBOX", "COPIED", "FILES", "PATH_FILE", "PATH_FOLDER", "PATH_VOLUME", "READER", "VOLUME", "path_reader"]

FILES: Final = "/joulepath"
"""Where the node's folder of the trainer's files is in containers; `current` leads to those of the node's agent."""
BUSYBOX: Final = f"{FILES}/current/busybox"
PATH_FOLDER: Final = "/joulepath-image"
PATH_FILE: Final = f"{PATH_FOLDER}/pythonpath"
"""Where the PYTHONPATH of the image is written down."""
VOLUME: Final = "joulepath"
PATH_VOLUME: Final = "joulepath-image"
READER: Final = "joulepath-pythonpath"
_SHARED_RESOURCES: Final = ("cpu", "memory", "ephemeral-storage")
"""What it asks for as the training container does; never GPUs, claims of devices or huge pages."""
_USER: Final = ("runAsUser", "runAsGroup", "runAsNonRoot")
COPIED: Final = ("image", "envFrom", *_USER)
"""What the kubelet may find amiss before it creates a container, and the training container has as well."""


def path_reader(container: Mapping[str, Any]) -> dict[str, Any]:
    """Writes down the PYTHONPATH that the container would have without us: of its image, or by its envFrom."""
    own = container.get("securityContext") or {}
    user = {field: own[field] for field in _USER if field in own}
    reader = {
        "name": READER,
        "image": container["image"],
        # Images for GPUs ask for all of them; this one needs none, and a broken GPU would keep it from starting.
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
        "command": [BUSYBOX, "sh", "-c", f'printf %s "$PYTHONPATH" > {PATH_FILE} || true'],
        "resources": _resources(container),
        "securityContext": {
            **user,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            {"name": VOLUME, "mountPath": FILES, "readOnly": True},
            {"name": PATH_VOLUME, "mountPath": PATH_FOLDER},
        ],
    }
    return reader | {field: container[field] for field in ("imagePullPolicy", "envFrom") if field in container}


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
