"""Processes in pods, found from the machine: whose they are, how to kill one or cut it off from the API server.

Which program does what in the agent's pod stands here alone: whoever sets clocks, hears the API server or gives clocks
back is asked for by that.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from real_cluster.commands import NotYetError, run

__all__ = ["HEARS", "PROGRAMS", "RESETS", "SETS", "command", "cut_off", "environment", "parent", "process", "processes"]

SETS: Final = "joulepath-clocks"
"""The program in the agent's pod that sets clocks."""
HEARS: Final = "joulepath-agent"
"""The one that hears the API server."""
RESETS: Final = "joulepath-warden"
"""The one that gives clocks back when the others don't."""
PROGRAMS: Final = frozenset({SETS, HEARS, RESETS})

_API_PORT: Final = 443
_TABLE: Final = "inet cut_off"


def process(pod: dict[str, Any], program: str) -> int:
    """The pid of the one living process of a program in the agent's pod.

    Raises:
        NotYetError: There isn't one.
    """
    living = [pid for pid in processes(pod, program) if alive(pid)]
    if len(living) != 1:
        raise NotYetError(f"{len(living)} processes of {program} in {pod['metadata']['name']}")
    return living[0]


def processes(pod: dict[str, Any], word: str) -> list[int]:
    """Pids of the processes of a pod with this word in their command line."""
    uid = pod["metadata"]["uid"]
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if uid in (folder / "cgroup").read_text() and word in command(int(folder.name)):
                found.append(int(folder.name))
    return sorted(found)


def command(pid: int) -> str:
    """The command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")


def environment(pid: int) -> dict[str, str]:
    """The environment that a process began with."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def parent(pid: int) -> int:
    """The pid of a process' parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def alive(pid: int) -> bool:
    """Whether a process lives; one that is dead and not yet waited for doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class CutOff:
    """A pod whose packets to and from the API server are dropped, by rules in its own network namespace."""

    def __init__(self, pid: int) -> None:
        self._network = ["nsenter", "--net", "--target", str(pid), "nft"]
        self._is_cut = False

    def cut(self) -> None:
        """From now on."""
        chains = (
            f"add table {_TABLE}\n"
            f"add chain {_TABLE} out {{ type filter hook output priority 0; }}\n"
            f"add chain {_TABLE} in {{ type filter hook input priority 0; }}\n"
            f"add rule {_TABLE} out tcp dport {_API_PORT} drop\n"
            f"add rule {_TABLE} in tcp sport {_API_PORT} drop\n"
        )
        run([*self._network, "-f", "-"], stdin=chains)
        self._is_cut = True

    def mend(self) -> None:
        """Until now; harmless if it isn't cut."""
        if self._is_cut:
            run([*self._network, "delete", "table", *_TABLE.split()])
            self._is_cut = False


@contextlib.contextmanager
def cut_off(pid: int) -> Iterator[CutOff]:
    """The pod of a process: cut and mend it inside the `with`; it is mended at the end."""
    made = CutOff(pid)
    try:
        yield made
    finally:
        with contextlib.suppress(Exception):
            made.mend()


def kill(pid: int, number: int) -> None:
    """Sends a signal to this very process."""
    os.kill(pid, number)
