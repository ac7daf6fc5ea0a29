"""Being woken in time on a host whose cores are busy: a real-time priority, as far as the container is given one.

Whoever sleeps until a GPU's next marker is due takes a core for microseconds, but under the usual scheduling waits for
milliseconds until somebody's slice is over. All threads of the process have the same priority, since they share the
interpreter's lock. A thread that ran for so long without ever sleeping would keep the training's own threads waiting:
the kernel then ends the process, and the warden gives its clocks back.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from typing import Final

__all__ = ["take_priority"]

_SWITCH_INTERVAL_S: Final = 0.0002
_LEAST_PRIORITY: Final = 1
_NICE: Final = -10
_LONGEST_US: Final = 500_000


def take_priority() -> str:
    """Takes the best that there is, for threads that begin from now on; what it is, in words."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_RTTIME, (_LONGEST_US, _LONGEST_US))
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(_LEAST_PRIORITY))
        return "real-time priority"
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICE)
        return f"priority {_NICE}"
    return "no priority over others: on a host whose cores are busy, clocks switch milliseconds late"
