"""Controllers that are there while somebody asks for them, from their own manifests and programs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from .archive import write_image
from .cluster import Cluster
from .commands import CommandError
from .kept import content_hash, kept
from .layout import cache_folder

__all__ = ["container_of", "image", "is_for_people", "served"]

_REQUESTS: Final = {"cpu": "100m", "memory": "64Mi"}


def image(program: Path, tag: str) -> Path:
    """An image with that program alone, as `/manager`."""
    name = f"{program.name}-{content_hash([str(program.resolve()), tag])}"

    def make(folder: Path) -> None:
        write_image(folder / "image.tar", tag, {"manager": program.read_bytes()}, ("/manager",))

    return kept(cache_folder() / "images" / name, make) / "image.tar"


def is_for_people(one: Mapping[str, Any]) -> bool:
    """Whether it is a role that no controller has."""
    return bool(one["metadata"]["name"].endswith(("-editor-role", "-viewer-role")))


def container_of(deployment: dict[str, Any], tag: str) -> dict[str, Any]:
    """The one container of a Deployment, which is of that image from now on, asks for little and is looked at soon."""
    pod = deployment["spec"]["template"]["spec"]
    pod["securityContext"] = {**(pod.get("securityContext") or {}), "runAsUser": 65532}  # the image names nobody
    (container,) = pod["containers"]
    container |= {"image": tag, "imagePullPolicy": "Never"}
    container["resources"] = {**(container.get("resources") or {}), "requests": _REQUESTS}
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 1}
    return dict(container)


@contextlib.contextmanager
def served(cluster: Cluster, made: Sequence[Mapping[str, Any]], objects: str) -> Iterator[None]:
    """Applies these manifests and waits until their Deployments run; at the end all is removed.

    Args:
        cluster: Where to.
        made: The manifests.
        objects: Kinds of which all are deleted before, while somebody is there who lets them go.
    """
    manifests = yaml.safe_dump_all(made)
    deployments = [
        ("--namespace", one["metadata"]["namespace"], f"deployment/{one['metadata']['name']}")
        for one in made
        if one["kind"] == "Deployment"
    ]
    try:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=manifests)
        for deployment in deployments:
            cluster.kubectl("rollout", "status", *deployment, "--timeout=120s")
        yield
    finally:
        for deployment in deployments:
            with contextlib.suppress(CommandError):
                print(cluster.kubectl("logs", *deployment, "--tail=100"))
        cluster.kubectl("delete", objects, "--all", "--all-namespaces", "--timeout=60s")
        cluster.kubectl("delete", "--ignore-not-found", "--timeout=60s", "--filename", "-", stdin=manifests)
