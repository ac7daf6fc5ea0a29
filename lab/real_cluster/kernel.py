"""Settings of the kernel: those that the cluster changes are noted when it comes up and put back when it goes down."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .layout import run_folder

__all__ = ["cores_awake", "note_settings", "restore_settings"]


_HALT_POLL: Final = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")
_AWAKE_NS: Final = 1_000_000
_SYSCTLS: Final = (  # which the kubelet and kube-proxy set
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/ip_forward",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_CHANGED: Final = (*(Path("/proc/sys", name) for name in _SYSCTLS), _HALT_POLL)


def _noted() -> Path:
    return run_folder() / "kernel-settings.json"


def note_settings() -> None:
    """Note the settings that the cluster will change, once."""
    if not _noted().exists():
        _noted().write_text(json.dumps({str(path): path.read_text().strip() for path in _CHANGED if path.exists()}))


def restore_settings() -> None:
    """Put back what `note_settings` noted."""
    if _noted().exists():
        for path, value in json.loads(_noted().read_text()).items():
            if Path(path).read_text().strip() != value:
                Path(path).write_text(value)


@contextlib.contextmanager
def cores_awake() -> Iterator[None]:
    """On a virtual machine, let idle cores poll for a millisecond before they halt; nothing elsewhere.

    A virtual core that has halted takes some 50 us to wake. When one training process hands over to another, several
    threads wake one after the other: on two cores 0.4 ms with this, 0.6 ms where cores halt at once (Linux's "guest
    halt polling"; its own default is 0.2 ms).
    """
    before = None
    with contextlib.suppress(OSError):  # no virtual machine, or a container whose /sys is read-only
        found = _HALT_POLL.read_text().strip()
        if int(found) < _AWAKE_NS:
            _HALT_POLL.write_text(str(_AWAKE_NS))
            before = found
    try:
        yield
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                _HALT_POLL.write_text(before)
