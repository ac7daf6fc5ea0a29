"""Being woken in time on a host whose cores are busy, as far as the container is given a priority.

Whoever sleeps until a GPU's next marker is due takes a core for microseconds, but under the usual scheduling waits for
milliseconds until somebody's slice is over. So the threads of GPUs have a real-time priority, the lowest there is. The
others, which peers can keep busy, have a high one of the usual kind: they share the interpreter's lock with those.

All of them keep to one core: only one at a time has the interpreter's lock, and to hand it to a thread on another core
takes longer than most of what they do with it.

A thread of a GPU that ran on without ever sleeping would keep the training's own threads waiting: the kernel then ends
the process, and the warden gives its clocks back.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

__all__ = ["prefer_process", "prefer_thread"]

_SWITCH_INTERVAL_S: Final = 0.0002
_LEAST_PRIORITY: Final = 1
_NICE: Final = -10
_LONGEST_US: Final = 500_000


def prefer_process() -> None:
    """For all threads that begin from now on, and to be called before `prefer_thread`."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def prefer_thread() -> bool:
    """For the thread that calls; whether it was given."""
    try:
        resource.setrlimit(resource.RLIMIT_RTTIME, (_LONGEST_US, _LONGEST_US))
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(_LEAST_PRIORITY))
    except (OSError, ValueError):
        return False
    return True
