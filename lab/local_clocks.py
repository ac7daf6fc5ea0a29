"""The clocks without a cluster: they serve whoever says which pod it stands for.

They lock clocks only while a `joulepath-warden` runs on the same state folder, and take ranks only while a
`local_agent` does.

    python local_clocks.py --socket S --state-dir D [--on-foreign-clock yield] [--plans-live SECONDS] [--untold]

With `--untold`, who comes by a pod's own socket is told by that alone, as on kernels before 6.5. They say {} on a line
of their own once they are there. A peer says which pod it stands for by the address of its socket, "\\0POD/...", or
with POD_UID in its environment, which is read from /proc.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final

from joulepath_clocks.clocks import Clocks, Paths
from joulepath_clocks.gpus.foreign import OnForeignClock
from joulepath_clocks.gpus.nvml import Nvml
from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.peers.process import peer_pidfd, pid_of
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.priority import prefer_process
from joulepath_warden.lock import Lock
from joulepath_warden.logs import Log

__all__ = ["identify", "main"]

_GRACE_S: Final = 20.0


def identify(connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
    """The pod whose socket it is, else the one that the peer's address or environment names."""
    proc = Path("/proc")
    pidfd = peer_pidfd(connection, proc, made_after_s)
    pid = pid_of(pidfd, proc)
    if pod_uid is not None:
        return Peer(pid, pidfd, pod_uid)
    if address := connection.getpeername():
        return Peer(pid, pidfd, address.decode().strip("\0").partition("/")[0])
    for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
        if entry.startswith(b"POD_UID="):
            return Peer(pid, pidfd, entry.partition(b"=")[2].decode())
    os.close(pidfd)
    raise PeerRefusedError("NoPod", f"process {pid} has no POD_UID in its environment")


def identify_by_door(connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
    """The same where the kernel tells nobody."""
    return identify(connection, made_after_s, None) if pod_uid is None else Peer(0, None, pod_uid)


def main() -> None:
    """Runs until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--on-foreign-clock", type=OnForeignClock, default=OnForeignClock.REASSERT)
    parser.add_argument("--plans-live", type=float, default=math.inf, help="seconds; said again, they live on")
    parser.add_argument("--untold", action="store_true")
    options = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    written = Log("info")
    paths = Paths(options.socket, options.state_dir)
    if not Lock(paths.lock).wait("another process of clocks", stop):
        return
    prefer_process()
    clocks = Clocks(
        Nvml(),
        identify_by_door if options.untold else identify,
        paths,
        on_foreign_clock=options.on_foreign_clock,
        plan_time_to_live_s=options.plans_live,
        log_descriptor=written.descriptor,
    )
    clocks.start()
    print("{}", flush=True)
    stop.wait()
    sys.exit(0 if clocks.stop(_GRACE_S) else 1)


if __name__ == "__main__":
    main()
