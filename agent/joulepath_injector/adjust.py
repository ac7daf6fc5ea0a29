"""What a container gets: the trainer's files, its pod's socket, and the variables that lead to them.

Pure. The container's environment is the one that its process would have, the image's own variables among it: so a
PYTHONPATH stays what it was, behind ours.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Final

from joulepath_injector.nri.messages import Adjustment, Container, Mount, Pod

__all__ = ["BOOTSTRAP", "FILES", "SOCKET_FOLDER", "adjustment", "has_trainer", "unsuited"]

FILES: Final = "/joulepath"
SOCKET_FOLDER: Final = "/run/joulepath"
BOOTSTRAP: Final = f"{FILES}/joulepath_trainer/bootstrap"

_VARIABLE: Final = "PYTHONPATH"
_ABOVE: Final = ("/", "/run", "/var/run")
"""Where ours would be made in what somebody else has mounted; /var/run leads to /run in most images."""
_SHOWN: Final = 100


def has_trainer(container: Container) -> bool:
    """Whether it has the trainer already: from the webhook, or an injector before this one."""
    return BOOTSTRAP in _python_path(container).split(":")


def unsuited(pod: Pod, container: Container) -> str:
    """What is in the way, as a sentence; empty where nothing is."""
    if pod.user_namespace or container.user_namespace:
        return "The pod has a user namespace of its own (hostUsers: false)."
    for mount in container.mounts:
        path = PurePosixPath(mount.destination)
        if str(path) in _ABOVE or any(path.is_relative_to(ours) for ours in (FILES, SOCKET_FOLDER)):
            return f"The container mounts {mount.destination[:_SHOWN]} itself."
    if len(_python_paths(container)) > 1:  # the runtime changes the first one, and the process would have the last
        return "Both image and pod set PYTHONPATH, which NRI can't change then: set it in one of them only."
    return ""


def adjustment(container: Container, files: Path, socket_folder: Path) -> Adjustment:
    """What is added, from these folders of the node."""
    own = _python_path(container)
    return Adjustment(
        mounts=(Mount(FILES, str(files)), Mount(SOCKET_FOLDER, str(socket_folder))),
        env={
            _VARIABLE: f"{BOOTSTRAP}:{own}" if own else BOOTSTRAP,
            "JOULEPATH_SOCKET": f"{SOCKET_FOLDER}/agent.sock",
        },
    )


def _python_path(container: Container) -> str:
    """As the process would have it."""
    return next(reversed(_python_paths(container)), "")


def _python_paths(container: Container) -> list[str]:
    """One, or none; containerd leaves an image's variable there where the pod sets it as well, behind it."""
    return [value for name, _, value in (one.partition("=") for one in container.env) if name == _VARIABLE]
