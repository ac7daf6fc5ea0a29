"""Where in a container the trainer is, and which of the container's own mounts would be in its way."""

from __future__ import annotations

from typing import Final

from joulepath_rules import meets

__all__ = ["BOOTSTRAP", "FILES", "PYTHON_PATH", "SOCKET_FOLDER", "WEBHOOKS_BOOTSTRAP", "in_the_way"]

FILES: Final = "/joulepath"
SOCKET_FOLDER: Final = "/run/joulepath"
BOOTSTRAP: Final = f"{FILES}/joulepath_trainer/bootstrap"
WEBHOOKS_BOOTSTRAP: Final = f"{FILES}/current/joulepath_trainer/bootstrap"
"""Where it is in pods that have it by a volume."""
PYTHON_PATH: Final = "PYTHONPATH"


def in_the_way(destination: str) -> bool:
    """Whether what is mounted there meets what we mount."""
    return meets(destination, FILES, SOCKET_FOLDER)
