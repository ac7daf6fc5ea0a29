"""The one place where the cluster knows of the virtual GPUs: which daemon offers them on a node."""

from __future__ import annotations

import importlib.util
import sys

from .node import Daemon
from .progress import say

_MODULE = "virtual_gpus.device_plugin"


def gpu_daemons(gpus: int) -> tuple[Daemon, ...]:
    """The device plugin that offers this many virtual GPUs on each node; none for 0."""
    if not gpus:
        return ()
    if importlib.util.find_spec("virtual_gpus") is None or importlib.util.find_spec(_MODULE) is None:
        say(f"{_MODULE} isn't there: the nodes get no GPUs.")
        return ()
    argv = (sys.executable, "-m", _MODULE, "--node", "{node}", "--gpus", str(gpus))
    return (Daemon("virtual-gpus", argv, provides=("nvidia.com/gpu", gpus)),)
