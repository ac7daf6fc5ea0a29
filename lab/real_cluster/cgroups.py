"""A cgroup for each node, below which its kubelet puts the pods.

Version 1 (a hierarchy for each controller) is what the tests run on. Version 2 (one hierarchy, where a controller must
be passed on to the children) is written after the kernel's documentation and untested.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .layout import NodeLayout
from .machine import cgroup_v2
from .processes import end, identities

__all__ = ["end_processes", "make", "remove"]


_ROOT: Final = Path("/sys/fs/cgroup")
_PRECEDENCE: Final = 8
"""How many times as much of a busy core a node gets as another program of this machine: training is timed there."""


def _folders(node: NodeLayout) -> Iterator[Path]:
    name = node.cgroup.lstrip("/")
    if cgroup_v2():
        yield _ROOT / name
    else:
        yield from (hierarchy / name for hierarchy in _ROOT.iterdir() if hierarchy.is_dir())


def make(node: NodeLayout) -> None:
    """Make the node's cgroups."""
    if cgroup_v2():
        for controller in (_ROOT / "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):  # one that is in use elsewhere can't be passed on
                (_ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
    for folder in _folders(node):
        folder.mkdir(exist_ok=True)
        if not cgroup_v2() and (folder / "cpuset.cpus").exists():  # a new cpuset is empty, and nothing may enter it
            for file in ("cpuset.cpus", "cpuset.mems"):
                (folder / file).write_text((folder.parent / file).read_text())
        for file, default in (("cpu.shares", 1024), ("cpu.weight", 100)):
            if (folder / file).exists():
                (folder / file).write_text(str(_PRECEDENCE * default))


def end_processes(node: NodeLayout) -> None:
    """Kill all that runs in the node's pods."""
    for _ in range(5):  # a container may be starting
        pids = {int(pid) for group in _groups(node) for pid in _read(group / "cgroup.procs").split()}
        if not pids:
            return
        end(identities(sorted(pids)), term_limit_s=0)


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:  # the cgroup went away meanwhile
        return ""


def remove(node: NodeLayout) -> None:
    """Remove the node's cgroups, leaves first."""
    for group in _groups(node):
        with contextlib.suppress(FileNotFoundError):  # its container's runtime was faster
            group.rmdir()


def _groups(node: NodeLayout) -> Iterator[Path]:
    """The node's cgroups and those below, leaves first; runtimes remove some meanwhile, which `walk` forgives."""
    return (Path(group) for folder in _folders(node) for group, _, _ in os.walk(folder, topdown=False))
