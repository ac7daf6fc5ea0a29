"""A Pod of an annotated job in, a JSON patch out that puts the trainer beside the user's code.

What the patch adds: a volume with the trainer's files, filled by an init container; the host folder with the agent's
socket; and in each container that has GPUs, `PYTHONPATH` and two more variables. The image's own `PYTHONPATH`, which
ours hides, an init container has written down; our `sitecustomize` puts it back. What the user wrote stays, and
whatever would clash with it means: no patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from joulepath_operator.facts.labels import INJECTED_ANNOTATION
from joulepath_operator.injection.init_containers import (
    FILES,
    FILLER,
    VOLUME,
    filler,
    path_file,
    path_reader,
    path_reader_name,
)

__all__ = ["Injection", "Outcome", "inject", "system_of"]

Json = dict[str, Any]

_SOCKET_FOLDER: Final = "/run/joulepath"
_BOOTSTRAP: Final = f"{FILES}/joulepath_trainer/bootstrap"
_SOCKET_VOLUME: Final = "joulepath-socket"


@dataclass(frozen=True, slots=True)
class Injection:
    """What to inject: the trainer's image, and the resources that make a container one that trains."""

    image: str
    pull_policy: str = "IfNotPresent"
    resources: tuple[str, ...] = ("nvidia.com/gpu",)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The patch, empty where the pod is left alone; and what is in the way, where somebody should know."""

    patch: tuple[Json, ...] = ()
    obstacles: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[str, ...]:
        """For whoever creates the pod."""
        extent = "injected in part" if self.patch else "not injected"
        return tuple(f"joulepath: {extent}, {obstacle}" for obstacle in self.obstacles)


def inject(pod: Mapping[str, Any], injection: Injection) -> Outcome:
    """The patch for a Pod; pure, and empty for a pod that has it already."""
    metadata, spec = pod.get("metadata") or {}, pod["spec"]
    if INJECTED_ANNOTATION in (metadata.get("annotations") or {}):
        return Outcome()
    targets = [one for one in spec["containers"] if _has_gpu(one, injection.resources)]
    if not targets:
        return Outcome()
    if why := _unsuited(spec, targets):
        return Outcome(obstacles=(why,))
    obstacles = tuple(
        f"PYTHONPATH of its container {one['name']} comes by valueFrom; give it by value"
        for one in targets
        if (variable := _variable(one, "PYTHONPATH")) is not None and "valueFrom" in variable
    )
    targets = [one for one in targets if "valueFrom" not in (_variable(one, "PYTHONPATH") or {})]
    if not targets:
        return Outcome(obstacles=obstacles)
    names = {one["name"] for one in targets}
    unset = [one for one in targets if _variable(one, "PYTHONPATH") is None]
    readers = [path_reader(path_reader_name(index), one) for index, one in enumerate(unset)]
    socket = {"name": _SOCKET_VOLUME, "hostPath": {"path": _SOCKET_FOLDER, "type": "DirectoryOrCreate"}}
    containers = [_with_trainer(one) if one["name"] in names else one for one in spec["containers"]]
    copying = filler(injection.image, injection.pull_policy, targets[0])
    return Outcome(
        patch=(
            _add(
                "/spec/volumes",
                [
                    *(spec.get("volumes") or ()),
                    {"name": VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": "32Mi"}},
                    socket,
                ],
            ),
            _add("/spec/initContainers", [copying, *readers, *(spec.get("initContainers") or ())]),
            _add("/spec/containers", containers),
            _add(
                "/metadata/annotations",
                {**(metadata.get("annotations") or {}), INJECTED_ANNOTATION: ",".join(sorted(names))},
            ),
        ),
        obstacles=obstacles,
    )


def system_of(spec: Mapping[str, Any]) -> str:
    """The operating system that a pod is for."""
    named = (spec.get("os") or {}).get("name") or (spec.get("nodeSelector") or {}).get("kubernetes.io/os")
    return named or "linux"


def _unsuited(spec: Mapping[str, Any], targets: Sequence[Mapping[str, Any]]) -> str | None:
    """What rules this pod out."""
    if (system := system_of(spec)) != "linux":
        return f"its system is {system}"
    if spec.get("hostUsers") is False:
        return "it has a user namespace of its own (hostUsers: false)"
    volumes = {one["name"] for one in spec.get("volumes") or ()}
    containers = {one["name"] for one in (*(spec.get("initContainers") or ()), *spec["containers"])}
    ours = {FILLER, *(path_reader_name(index) for index in range(len(targets)))}
    if taken := sorted(volumes & {VOLUME, _SOCKET_VOLUME} | containers & ours):
        return f"it uses the name {taken[0]} itself"
    for container in targets:
        for mount in container.get("volumeMounts") or ():
            if _inside(mount["mountPath"], FILES) or _inside(mount["mountPath"], _SOCKET_FOLDER):
                return f"its container {container['name']} mounts {mount['mountPath']} itself"
    return None


def _with_trainer(container: Mapping[str, Any]) -> Json:
    """The container with our variables and mounts; its own PYTHONPATH stays, behind ours, at its place in the list."""
    variables = [dict(one) for one in container.get("env") or ()]
    own = next((one for one in variables if one["name"] == "PYTHONPATH"), None)
    if own is None:
        variables.append({"name": "PYTHONPATH", "value": _BOOTSTRAP})
        variables.append({"name": "JOULEPATH_IMAGE_PYTHONPATH_FILE", "value": path_file(container)})
    else:
        own["value"] = f"{_BOOTSTRAP}:{own['value']}" if own.get("value") else _BOOTSTRAP
        if own["value"] == _BOOTSTRAP:  # it is empty, whatever the image has
            variables.append({"name": "JOULEPATH_IMAGE_PYTHONPATH_FILE", "value": "/dev/null"})
    variables.append({"name": "JOULEPATH_SOCKET", "value": f"{_SOCKET_FOLDER}/agent.sock"})
    mounts = [
        *(container.get("volumeMounts") or ()),
        {"name": VOLUME, "mountPath": FILES, "readOnly": True},
        {"name": _SOCKET_VOLUME, "mountPath": _SOCKET_FOLDER, "readOnly": True},
    ]
    return {**container, "env": variables, "volumeMounts": mounts}


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
