"""A Pod of an annotated job in, a JSON patch out that puts the trainer beside the user's code.

What the patch adds: a volume with the trainer's files, filled by an init container; the host folder with the agent's
socket; and in each container that has GPUs, `PYTHONPATH` and two more variables. A `PYTHONPATH` in a pod's spec hides
the one of the image's own ENV, so a second init container runs the user's image and writes that value down; our
`sitecustomize` puts it back. What the user wrote stays, and whatever would clash with it means: no patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from joulepath_operator.facts.labels import INJECTED_ANNOTATION

Json = dict[str, Any]

SOCKET_FOLDER = "/run/joulepath"
FILES = "/joulepath"
"""Where the trainer's files are: in its image, and in the user's containers."""
_FILLING = "/joulepath-volume"
_BUSYBOX = f"{FILES}/busybox"
_BOOTSTRAP = f"{FILES}/joulepath_trainer/bootstrap"
_VOLUME, _SOCKET_VOLUME = "joulepath", "joulepath-socket"
_INIT = "joulepath-trainer"
_NOBODY = 65532
_SHARED_RESOURCES = ("cpu", "memory", "ephemeral-storage")
"""What an init container asks for as its training container does; never GPUs, claims of devices or huge pages."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What to inject: the trainer's image, and the resources that make a container one that trains."""

    image: str
    pull_policy: str = "IfNotPresent"
    resources: tuple[str, ...] = ("nvidia.com/gpu",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The patch, empty where the pod is left alone; and why, where somebody should know."""

    patch: tuple[Json, ...] = ()
    warnings: tuple[str, ...] = ()


def inject(pod: Mapping[str, Any], injection: Injection) -> Outcome:
    """The patch for a Pod; pure, and empty for a pod that has it already."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    if INJECTED_ANNOTATION in (metadata.get("annotations") or {}):
        return Outcome()
    targets = [one for one in spec["containers"] if _has_gpu(one, injection.resources)]
    if not targets:
        return Outcome()
    if why := _unsuited(spec, targets):
        return Outcome(warnings=(f"joulepath: not injected, {why}",))
    warnings = tuple(
        f"joulepath: container {one['name']} not injected, its PYTHONPATH comes by valueFrom; give it by value"
        for one in targets
        if (variable := _variable(one, "PYTHONPATH")) is not None and "valueFrom" in variable
    )
    targets = [one for one in targets if "valueFrom" not in (_variable(one, "PYTHONPATH") or {})]
    if not targets:
        return Outcome(warnings=warnings)
    names = {one["name"] for one in targets}
    unset = [one for one in targets if _variable(one, "PYTHONPATH") is None]
    readers = [_path_reader(_reader_name(index), one) for index, one in enumerate(unset)]
    socket = {"name": _SOCKET_VOLUME, "hostPath": {"path": SOCKET_FOLDER, "type": "DirectoryOrCreate"}}
    containers = [_with_trainer(one) if one["name"] in names else one for one in spec["containers"]]
    return Outcome(
        patch=(
            _add(
                "/spec/volumes",
                [
                    *(spec.get("volumes") or ()),
                    {"name": _VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
                    socket,
                ],
            ),
            _add(
                "/spec/initContainers", [_filler(injection, targets[0]), *readers, *(spec.get("initContainers") or ())]
            ),
            _add("/spec/containers", containers),
            _add(
                "/metadata/annotations",
                {**(metadata.get("annotations") or {}), INJECTED_ANNOTATION: ",".join(sorted(names))},
            ),
        ),
        warnings=warnings,
    )


def _unsuited(spec: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> str | None:
    """What rules this pod out."""
    system = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    if system not in (None, "linux"):
        return f"its system is {system}"
    if spec.get("hostUsers") is False:
        return "it has a user namespace of its own (hostUsers: false)"
    volumes = {one["name"] for one in spec.get("volumes") or ()}
    containers = {one["name"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])}
    ours = {_INIT, *(_reader_name(index) for index in range(len(targets)))}
    if taken := sorted(volumes & {_VOLUME, _SOCKET_VOLUME} | containers & ours):
        return f"it uses the name {taken[0]} itself"
    for container in targets:
        for mount in container.get("volumeMounts") or ():
            if _inside(mount["mountPath"], FILES) or _inside(mount["mountPath"], SOCKET_FOLDER):
                return f"its container {container['name']} mounts {mount['mountPath']} itself"
    return None


def _with_trainer(container: Mapping[str, Any]) -> Json:
    """The container with our variables and mounts; its own PYTHONPATH stays, behind ours, at its place in the list."""
    variables = [dict(one) for one in container.get("env") or ()]
    own = next((one for one in variables if one["name"] == "PYTHONPATH"), None)
    if own is None:
        variables.append({"name": "PYTHONPATH", "value": _BOOTSTRAP})
        variables.append({"name": "JOULEPATH_IMAGE_PYTHONPATH_FILE", "value": _path_file(container)})
    else:
        own["value"] = f"{_BOOTSTRAP}:{own['value']}" if own.get("value") else _BOOTSTRAP
    variables.append({"name": "JOULEPATH_SOCKET", "value": f"{SOCKET_FOLDER}/agent.sock"})
    mounts = [
        *(container.get("volumeMounts") or ()),
        {"name": _VOLUME, "mountPath": FILES, "readOnly": True},
        {"name": _SOCKET_VOLUME, "mountPath": SOCKET_FOLDER, "readOnly": True},
    ]
    return {**container, "env": variables, "volumeMounts": mounts}


def _filler(injection: Injection, container: Mapping[str, Any]) -> Json:
    """Copies the trainer's files to the volume. A copy that fails is no reason not to train."""
    return {
        "name": _INIT,
        "image": injection.image,
        "imagePullPolicy": injection.pull_policy,
        "command": [_BUSYBOX, "sh", "-c", f"{_BUSYBOX} cp -r {FILES}/. {_FILLING}/ || true"],
        "resources": _resources(container),
        "securityContext": _restricted({"runAsUser": _NOBODY, "runAsGroup": _NOBODY, "runAsNonRoot": True}),
        "volumeMounts": [{"name": _VOLUME, "mountPath": _FILLING}],
    }


def _path_reader(name: str, container: Mapping[str, Any]) -> Json:
    """Writes down the PYTHONPATH that the container would have without us: of its image, or by its envFrom."""
    own = container.get("securityContext") or {}
    user = {field: own[field] for field in ("runAsUser", "runAsGroup", "runAsNonRoot") if field in own}
    reader = {
        "name": name,
        "image": container["image"],
        # Images for GPUs ask for all of them; this one needs none, and a broken GPU would keep it from starting.
        "env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}],
        "command": [_BUSYBOX, "sh", "-c", f'printf %s "$PYTHONPATH" > {_path_file(container)} || true'],
        "resources": _resources(container),
        "securityContext": _restricted(user),
        "volumeMounts": [{"name": _VOLUME, "mountPath": FILES}],
    }
    return reader | {field: container[field] for field in ("imagePullPolicy", "envFrom") if field in container}


def _resources(container: Mapping[str, Any]) -> Json:
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


def _restricted(user: Mapping[str, Any]) -> Json:
    return {
        **user,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _reader_name(index: int) -> str:
    return "joulepath-pythonpath" + (f"-{index}" if index else "")


def _path_file(container: Mapping[str, Any]) -> str:
    return f"{FILES}/pythonpath-{container['name']}"


def _has_gpu(container: Mapping[str, Any], resources: Sequence[str]) -> bool:
    limits = (container.get("resources") or {}).get("limits") or {}
    return any(str(limits.get(resource, "0")) != "0" for resource in resources)


def _variable(container: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((one for one in container.get("env") or () if one["name"] == name), None)


def _inside(path: str, folder: str) -> bool:
    return f"{path.rstrip('/')}/".startswith(f"{folder}/")


def _add(path: str, value: Any) -> Json:
    """JSON patch: adds the member, or puts this in its place."""
    return {"op": "add", "path": path, "value": value}
