"""The one place where the cluster knows of the virtual GPUs: the daemon that offers them on a node.

A node's GPUs are a file in its own /run/virtual-gpus. It is laid only if it isn't there with that many GPUs: a test or
the demo may have put another model into it (`python -m virtual_gpus init`, in the node).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from .node import Daemon

__all__ = ["gpu_daemons"]


_RUN: Final = """
if [ "$("$0" -m virtual_gpus look 2>/dev/null | wc -l)" != "$2" ]; then
  "$0" -m virtual_gpus init --node "$1" --gpus "$2" || exit
fi
exec "$0" -m virtual_gpus.device_plugin
"""


def gpu_daemons(gpus: int) -> tuple[Daemon, ...]:
    """The device plugin that offers this many virtual GPUs on each node; none for 0."""
    if not gpus:
        return ()
    argv = ("sh", "-c", _RUN, sys.executable, "{node}", str(gpus))
    environment = {"PYTHONPATH": str(Path(__file__).parents[1])}
    return (Daemon("virtual-gpus", argv, environment, provides=("nvidia.com/gpu", gpus)),)
