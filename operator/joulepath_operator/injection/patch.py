"""A Pod of an annotated job in, a JSON patch out that puts the trainer beside the user's code.

What the patch adds: two folders of the node, read-only, with the trainer's files and with the agent's socket; and in
each container that has GPUs, `PYTHONPATH` and two more variables. What is missing on the node is an empty folder, and
the container runs without the trainer. The image's own `PYTHONPATH`, which ours hides, an init container has written
down; our `sitecustomize` puts it back. There is one of that, for one image: containers of others have to set their
PYTHONPATH themselves. What the user wrote stays, and whatever would clash with it means: no patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joulepath_crds import controller, meets
from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.init_container import (
    FILES,
    PATH_FILE,
    PATH_FOLDER,
    PATH_VOLUME,
    READER,
    VOLUME,
    path_reader,
)

__all__ = ["Outcome", "inject", "left_out", "system_of"]

Json = dict[str, Any]

_NODES_FILES: Final = "/var/lib/joulepath/trainer"
"""Where the agent's pod puts them."""
_SOCKET_FOLDER: Final = "/run/joulepath"
_BOOTSTRAP: Final = f"{FILES}/current/joulepath_trainer/bootstrap"
_PATH_FILE_VARIABLE: Final = "JOULEPATH_IMAGE_PYTHONPATH_FILE"
_SOCKET_VOLUME: Final = "joulepath-socket"
_MOST_CONTAINERS: Final = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """The patch, empty where the pod is left alone; and what is in the way, where somebody should know."""

    patch: tuple[Json, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def starts_first(self) -> bool:
        """Whether an init container comes with it, which the pod waits for."""
        return any(one["path"] == "/spec/initContainers" for one in self.patch)

    @property
    def warnings(self) -> tuple[str, ...]:
        """For whoever creates the pod."""
        extent = "injected in part" if self.patch else "not injected"
        return tuple(f"joulepath: {extent}, {obstacle}" for obstacle in self.obstacles)


def inject(pod: Mapping[str, Any], resources: Sequence[str]) -> Outcome:
    """The patch for a Pod; pure, and empty for a pod that has it already.

    Args:
        pod: As the API server sends it for review.
        resources: A container with a limit of one of these trains.
    """
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    if INJECTED_ANNOTATION in (metadata.get("annotations") or {}):
        return Outcome()
    training = [one for one in spec["containers"] if _has_gpu(one, resources)]
    if not training:
        return Outcome()
    if why := _unsuited(spec, training):
        return Outcome(obstacles=(why,))
    once = _once(pod)
    unset = None if once else next((one for one in training if _variable(one, "PYTHONPATH") is None), None)
    in_the_way = {one["name"]: _obstacle(one, unset, once) for one in training}
    obstacles = tuple(filter(None, in_the_way.values()))
    names = {name for name, why in in_the_way.items() if not why}
    if not names:
        return Outcome(obstacles=obstacles)
    init = [] if unset is None else [path_reader(unset)]
    path = [] if unset is None else [{"name": PATH_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]
    folders = [_folder(VOLUME, _NODES_FILES), _folder(_SOCKET_VOLUME, _SOCKET_FOLDER)]
    containers = [_with_trainer(one) if one["name"] in names else one for one in spec["containers"]]
    annotations = {**(metadata.get("annotations") or {}), INJECTED_ANNOTATION: ",".join(sorted(names))}
    return Outcome(
        patch=(
            _add("/spec/volumes", [*(spec.get("volumes") or ()), *folders, *path]),
            *([_add("/spec/initContainers", [*init, *(spec.get("initContainers") or ())])] if init else ()),
            _add("/spec/containers", containers),
            _add("/metadata/annotations", annotations),
        ),
        obstacles=obstacles,
    )


def left_out(pod: Mapping[str, Any], resources: Sequence[str]) -> str:
    """Why a container that trains has no trainer in a pod that was injected, as a clause; empty where all have it."""
    names = pod["metadata"]["annotations"][INJECTED_ANNOTATION].split(",")
    training = [one for one in pod["spec"]["containers"] if _has_gpu(one, resources)]
    read = next(
        (one for one in training if (_variable(one, _PATH_FILE_VARIABLE) or {}).get("value") == PATH_FILE), None
    )
    once = read is None and _once(pod)
    return next((why for one in training if one["name"] not in names and (why := _obstacle(one, read, once))), "")


def system_of(spec: Mapping[str, Any]) -> str:
    """The operating system that a pod is for."""
    named = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    return named or "linux"


def _unsuited(spec: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> str | None:
    """What rules this pod out."""
    if (count := len(spec["containers"])) > _MOST_CONTAINERS:
        return f"it has {count} containers, and {_MOST_CONTAINERS} are the most that are looked at"
    if (system := system_of(spec)) != "linux":
        return f"its system is {system}"
    if spec.get("hostUsers") is False:
        return "it has a user namespace of its own (hostUsers: false)"
    volumes = {one["name"] for one in spec.get("volumes") or ()}
    containers = {one["name"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])}
    if taken := sorted(volumes & {VOLUME, PATH_VOLUME, _SOCKET_VOLUME} | containers & {READER}):
        return f"it uses the name {taken[0]} itself"
    for container in targets:
        for mount in container.get("volumeMounts") or ():
            if meets(mount["mountPath"], FILES, PATH_FOLDER, _SOCKET_FOLDER):
                return f"its container {container['name']} mounts {mount['mountPath']} itself"
    return None


def _once(pod: Mapping[str, Any]) -> bool:
    """Whether an init container that doesn't begin would end the pod, or its job after a few times."""
    job = controller(pod.get("metadata") or {})
    return pod["spec"].get("restartPolicy") == "Never" or (job is not None and job.kind.counts_restarts)


def _obstacle(container: Mapping[str, Any], read: Mapping[str, Any] | None, once: bool) -> str:
    """Why a container's PYTHONPATH can't be kept behind ours, as a clause.

    Args:
        container: It trains.
        read: The one whose image's is read; None where none is.
        once: Whether what doesn't begin ends the pod, so that none may be.
    """
    name, variable = container["name"], _variable(container, "PYTHONPATH")
    if variable is not None:
        by_value = "valueFrom" not in variable
        return "" if by_value else f"PYTHONPATH of its container {name} comes by valueFrom; give it by value"
    if once:
        return (
            "its restartPolicy is Never or it is a Job's, so the init container that keeps the PYTHONPATH of an image "
            "would end it on a node that never had an agent; set PYTHONPATH in the env of its container "
            f"{name}, to what the image has"
        )
    if read is None or all(container.get(field) == read.get(field) for field in ("image", "envFrom")):
        return ""
    return (
        f"its container {name} has another image or envFrom than its container {read['name']}, and only one image's "
        "PYTHONPATH can be kept; set PYTHONPATH in its env, to what the image has"
    )


def _with_trainer(container: Mapping[str, Any]) -> Json:
    """The container with our variables and mounts; its own PYTHONPATH stays, behind ours, at its place in the list."""
    variables = [dict(one) for one in container.get("env") or ()]
    own = next((one for one in variables if one["name"] == "PYTHONPATH"), None)
    if own is None:
        variables.append({"name": "PYTHONPATH", "value": _BOOTSTRAP})
        variables.append({"name": _PATH_FILE_VARIABLE, "value": PATH_FILE})
    else:
        own["value"] = f"{_BOOTSTRAP}:{own['value']}" if own.get("value") else _BOOTSTRAP
        if own["value"] == _BOOTSTRAP:  # it is empty, whatever the image has
            variables.append({"name": _PATH_FILE_VARIABLE, "value": "/dev/null"})
    variables.append({"name": "JOULEPATH_SOCKET", "value": f"{_SOCKET_FOLDER}/agent.sock"})
    mounts = [
        *(container.get("volumeMounts") or ()),
        {"name": VOLUME, "mountPath": FILES, "readOnly": True},
        {"name": _SOCKET_VOLUME, "mountPath": _SOCKET_FOLDER, "readOnly": True},
        *([{"name": PATH_VOLUME, "mountPath": PATH_FOLDER, "readOnly": True}] if own is None else ()),
    ]
    return {**container, "env": variables, "volumeMounts": mounts}


def _folder(name: str, path: str) -> Json:
    """A volume of a node's folder: one that isn't there is made, so that no pod waits for it."""
    return {"name": name, "hostPath": {"path": path, "type": "DirectoryOrCreate"}}


def _has_gpu(container: Mapping[str, Any], resources: Sequence[str]) -> bool:
    limits = (container.get("resources") or {}).get("limits") or {}
    return any(str(limits.get(resource, "0")) != "0" for resource in resources)


def _variable(container: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((one for one in container.get("env") or () if one["name"] == name), None)


def _add(path: str, value: Any) -> Json:
    """JSON patch: adds the member, or puts this in its place."""
    return {"op": "add", "path": path, "value": value}
