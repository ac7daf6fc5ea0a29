"""What a container gets: the trainer's files, its pod's socket, and the variables that lead to them.

Pure. The container's environment is the one that its process would have, the image's own variables among it: so a
PYTHONPATH stays what it was, behind ours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from joulepath_injector.nri.messages import Adjustment, Container, Mount, Pod
from joulepath_injector.places import (
    BOOTSTRAP,
    FILES,
    PYTHON_PATH,
    SOCKET_FOLDER,
    WEBHOOKS_BOOTSTRAP,
    in_the_way,
)

__all__ = ["adjustment", "has_trainer", "unsuited"]

_LONGEST_BYTES: Final = 128 * 1024 - 1
"""Of a variable with its name: no process is begun with a longer one (the kernel's MAX_ARG_STRLEN)."""
_SHOWN: Final = 100


def has_trainer(container: Container) -> bool:
    """Whether it has the trainer already: from the webhook, or an injector before this one."""
    return not {BOOTSTRAP, WEBHOOKS_BOOTSTRAP}.isdisjoint(_python_path(container).split(":"))


def unsuited(pod: Pod, container: Container) -> str:
    """What is in the way, as a sentence; empty where nothing is."""
    if pod.user_namespace or container.user_namespace:
        return "The pod has a user namespace of its own (hostUsers: false)."
    for mount in container.mounts:
        if in_the_way(mount.destination):
            return f"The container mounts {mount.destination[:_SHOWN]} itself."
    if len(_python_paths(container)) > 1:  # the runtime changes the first one, and the process would have the last
        return "Both image and pod set PYTHONPATH, which NRI can't change then: set it in one of them only."
    if len(f"{PYTHON_PATH}={_joined(container)}".encode()) > _LONGEST_BYTES:
        return "With the trainer in front its PYTHONPATH would pass 128 KiB, and Linux begins no process with that."
    return ""


def adjustment(container: Container, files: Path, socket_folder: Path) -> Adjustment:
    """What is added, from these folders of the node."""
    env = {PYTHON_PATH: _joined(container), "JOULEPATH_SOCKET": f"{SOCKET_FOLDER}/agent.sock"}
    if not _python_path(container):
        # What the user's script appends to an empty PYTHONPATH stands beside an empty entry, and not beside ours.
        env["JOULEPATH_IMAGE_PYTHONPATH_FILE"] = "/dev/null"
    return Adjustment(mounts=(Mount(FILES, str(files)), Mount(SOCKET_FOLDER, str(socket_folder))), env=env)


def _joined(container: Container) -> str:
    own = _python_path(container)
    return f"{BOOTSTRAP}:{own}" if own else BOOTSTRAP


def _python_path(container: Container) -> str:
    """As the process would have it."""
    return next(reversed(_python_paths(container)), "")


def _python_paths(container: Container) -> list[str]:
    """One, or none; containerd leaves an image's variable there where the pod sets it as well, behind it."""
    return [value for name, _, value in (one.partition("=") for one in container.env) if name == PYTHON_PATH]
