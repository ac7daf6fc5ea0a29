"""Processes that outlive the command that started them, known by pid and start time.

There is no daemon that watches them: `start` starts what doesn't run as asked, and a second `up` mends what died. Every
process (and its children, containerd's shims among them) carries a mark in its environment, so that `end_all` finds
also those whose record was never written because `up` was killed in between.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .kept import content_hash, locked

__all__ = ["Processes", "end", "identities"]


_MARK: Final = "JOULEPATH_CLUSTER"
_TERM_LIMIT_S: Final = 5.0
_SESSION_NICE: Final = -9
"""A session of processes with it gets 8 times as much of a busy core as another, as the nodes' pods do (`cgroups`)."""


def _start_ticks(pid: int) -> int | None:
    """When a live process began (clock ticks since boot): with the pid, its identity. None for a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def end(who: Mapping[int, int], term_limit_s: float = _TERM_LIMIT_S) -> None:
    """End processes given as pid -> start ticks: SIGTERM, after `term_limit_s` seconds SIGKILL."""
    for number, limit_s in ((signal.SIGTERM, term_limit_s), (signal.SIGKILL, 5.0)):
        left = {pid for pid, ticks in who.items() if _start_ticks(pid) == ticks}
        for pid in left if limit_s else ():
            _signal(pid, number)
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline and any(_start_ticks(pid) == who[pid] for pid in left):
            time.sleep(0.02)


def identities(pids: Iterator[int] | Sequence[int]) -> dict[int, int]:
    """pid -> start ticks of those that live."""
    return {pid: ticks for pid in pids if (ticks := _start_ticks(pid)) is not None}


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes whose records and logs are below `folder`; `path` is put before their PATH."""

    folder: Path
    path: Path

    def _record(self, name: str) -> Path:
        return self.folder / "processes" / f"{name}.json"

    def log(self, name: str) -> Path:
        """Where the process' output goes."""
        return self.folder / "log" / f"{name}.log"

    def pid(self, name: str) -> int | None:
        """The pid of the process of this name if it lives."""
        try:
            record = json.loads(self._record(name).read_text())
        except (OSError, ValueError):
            return None
        pid: int = record["pid"]
        return pid if _start_ticks(pid) == record["start_ticks"] else None

    def names(self) -> tuple[str, ...]:
        """All names that were started and not stopped."""
        return tuple(sorted(path.stem for path in (self.folder / "processes").glob("*.json")))

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        env: Mapping[str, str] | None = None,
        files: Sequence[Path] = (),
    ) -> bool:
        """Start `argv` unless it runs; one that runs with another command or other `files` is started anew.

        Returns whether anything was started. The working folder is the root folder.
        """
        words = [str(word) for word in argv]
        record = self._record(name)
        with locked(record.with_suffix(".lock")):
            asked = content_hash([*words, *(f"{k}={v}" for k, v in sorted((env or {}).items())), *files])
            if self.pid(name) is not None:
                if json.loads(record.read_text())["asked"] == asked:
                    return False
                self.stop(name)
            self.log(name).parent.mkdir(parents=True, exist_ok=True)
            environment = {
                **os.environ,
                "PATH": f"{self.path}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin",
                **(env or {}),
                _MARK: str(self.folder),
            }
            with self.log(name).open("ab") as log:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd="/",
                    env=environment,
                )
            with contextlib.suppress(OSError):  # a kernel without autogroups, or a process that has ended at once
                Path(f"/proc/{process.pid}/autogroup").write_text(str(_SESSION_NICE))
            ticks = _start_ticks(process.pid)
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps({"pid": process.pid, "start_ticks": ticks, "asked": asked}))
            partial.rename(record)
            process.returncode = 0  # it is meant to outlive us: no warning when this object goes
        return True

    def stop(self, name: str) -> None:
        """End the process of this name, if it lives, and forget it."""
        if (pid := self.pid(name)) is not None:
            end(identities([pid]))
        self._record(name).unlink(missing_ok=True)

    def _marked(self) -> Iterator[int]:
        mark = f"{_MARK}={self.folder}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    environment = (entry / "environ").read_bytes()
                except OSError:
                    continue
                if mark in environment.split(b"\0"):
                    yield int(entry.name)

    def end_all(self) -> None:
        """End every process of this cluster, recorded or not, and all that they started."""
        for _ in range(5):  # one of them may just have started another
            if not (found := identities(self._marked())):
                return
            end(found, term_limit_s=2)  # the API server would wait longer for its clients
