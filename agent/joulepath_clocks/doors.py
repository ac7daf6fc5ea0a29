"""Where ranks come in: a socket for all pods of the node, and one for each container that has a folder of its own.

A folder is named by its pod's UID and by its container. Whoever makes it (the injector, as root) shows it to that
container and to no other, so that whoever comes by the socket in it is in that pod, on every kernel. They are looked at
again and again: a folder that is new gets a socket, with one that is gone the socket ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Door", "PodDoors"]

log = logging.getLogger(__name__)

_SOCKET_NAME: Final = "agent.sock"
_BACKLOG: Final = 512
_BACKLOG_OF_POD: Final = 64
_AT_ONCE: Final = 64
_AT_ONCE_OF_POD: Final = 8
_FOLDER: Final = re.compile(r"(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})(?:\.[0-9a-f]{1,16})?")
"""The API server's UIDs, and those that the kubelet gives to static pods; and the begin of a container's ID."""


class Door:
    """A socket that ranks connect to."""

    def __init__(self, path: Path, pod_uid: str | None = None) -> None:
        """Listens at once, instead of whoever did before.

        Args:
            path: Of the socket.
            pod_uid: The pod whose it is, None where it is all pods'.

        Raises:
            OSError: The socket can't be made.
        """
        self.path, self.pod_uid = path, pod_uid
        self.empty_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        """When no connection waited to be accepted, last: those that do are younger."""
        made = path.with_name(f".{path.name}")  # nobody finds it before it listens
        made.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.socket.bind(str(made))
            self._inode = made.stat().st_ino
            made.chmod(0o666)  # training pods run as any user
            self.socket.listen(_BACKLOG if pod_uid is None else _BACKLOG_OF_POD)
            self.socket.setblocking(False)
            made.replace(path)
        except BaseException:
            self.socket.close()
            raise

    @property
    def stands(self) -> bool:
        """Whether its socket can still be found. Where that can't be told, it can."""
        try:
            return self.path.stat().st_ino == self._inode
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def accept(self) -> Iterator[socket.socket]:
        """Those that wait, many of one for all pods: while one fills the queue, the others find it full.

        A pod's own queue hurts only that pod, and a few at a time keep nobody else waiting.
        """
        for _ in range(_AT_ONCE if self.pod_uid is None else _AT_ONCE_OF_POD):
            looked_at_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            try:
                client, _ = self.socket.accept()
            except BlockingIOError:
                self.empty_at_s = looked_at_s
                return
            client.setblocking(False)
            yield client

    def close(self) -> None:
        """Listens no more."""
        with contextlib.suppress(OSError):
            if self.stands:  # else the next one's is there already
                self.path.unlink()
        self.socket.close()


class PodDoors:
    """The doors of single pods. For one thread."""

    def __init__(self, folder: Path, most: int, most_of_pod: int) -> None:
        """Looks in that folder for those of pods.

        Args:
            folder: Of the pods' folders.
            most: Pods that have one; and so many further ones of them all together, so that a pod's first finds room
                however many the others have.
            most_of_pod: Those of one pod.
        """
        with contextlib.suppress(OSError):  # whoever needs it says so
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)  # a pod is shown its own folder in it; users of the node get to none
        self._folder, self._most, self._most_of_pod = folder, most, most_of_pod
        self._doors: dict[str, Door] = {}
        self._troubles: dict[str, str] = {}
        """By name of a folder: what was logged of it."""

    def look(self) -> tuple[list[Door], list[Door]]:
        """The doors that are new and those that are gone since the last look; the caller closes these."""
        gone = {name: door for name, door in self._doors.items() if not door.stands}
        names = self._names()
        self._troubles = {name: what for name, what in self._troubles.items() if name in ("", *names)}
        # Whose socket is gone may be about to lose its folder: with another one in it, it couldn't.
        by_pod = Counter(door.pod_uid for door in self._doors.values())
        new = [made for name in names if name not in self._doors and (made := self._open(name, by_pod)) is not None]
        for name in gone:
            del self._doors[name]
        return new, list(gone.values())

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._folder) as found:
                names = [one.name for one in found if _FOLDER.fullmatch(one.name) and one.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            self._complain("", f"{self._folder} can't be read: {error}")
            return []
        self._troubles.pop("", None)
        return names

    def _open(self, name: str, by_pod: Counter[str | None]) -> Door | None:
        pod_uid = name.partition(".")[0]
        if why := self._no_room(pod_uid, by_pod):
            self._complain(name, f"pod {pod_uid} has no {why}")
            return None
        try:
            door = self._doors[name] = Door(self._folder / name / _SOCKET_NAME, pod_uid)
        except OSError as error:
            self._complain(name, f"pod {pod_uid} has no socket: {error}")
            return None
        by_pod[pod_uid] += 1
        self._troubles.pop(name, None)
        return door

    def _no_room(self, pod_uid: str, by_pod: Counter[str | None]) -> str:
        """Which socket it can't have and why, empty where it can."""
        if pod_uid not in by_pod:
            return f"socket: {self._most} have one already" if len(by_pod) >= self._most else ""
        if by_pod[pod_uid] >= self._most_of_pod:
            return f"further socket: it has {self._most_of_pod} already"
        further = len(self._doors) - len(by_pod)
        return f"further socket: pods have {further} of these already" if further >= self._most else ""

    def _complain(self, name: str, what: str) -> None:
        """Once: it is tried again at each look."""
        if self._troubles.get(name) != what:
            self._troubles[name] = what
            log.warning("%s", what)
