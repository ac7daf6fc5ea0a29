"""Where in a container the trainer is, and which of the container's own mounts would be in its way."""

from __future__ import annotations

from typing import Final

__all__ = ["BOOTSTRAP", "FILES", "PYTHON_PATH", "SOCKET_FOLDER", "WEBHOOKS_BOOTSTRAP", "in_the_way", "lexical"]

FILES: Final = "/joulepath"
SOCKET_FOLDER: Final = "/run/joulepath"
BOOTSTRAP: Final = f"{FILES}/joulepath_trainer/bootstrap"
WEBHOOKS_BOOTSTRAP: Final = f"{FILES}/current/joulepath_trainer/bootstrap"
"""Where it is in pods that have it by a volume."""
PYTHON_PATH: Final = "PYTHONPATH"

_ABOVE: Final = ("/", "/run")
"""Where ours would be made in what somebody else has mounted."""


def lexical(destination: str) -> str:
    """The path that the runtime comes to from a container's root, without looking into its image.

    `/var/run` leads to `/run` in most images, before a `..` behind it counts.
    """
    parts: list[str] = []
    for part in destination.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
        if parts == ["var", "run"]:
            parts = ["run"]
    return "/" + "/".join(parts)


def in_the_way(destination: str) -> bool:
    """Whether what is mounted there meets what we mount."""
    path = lexical(destination)
    return path in _ABOVE or any(f"{path}/".startswith(f"{ours}/") for ours in (FILES, SOCKET_FOLDER))
