"""Folders of the node that containers mount: the trainer's files, once for each content, and one of each container's.

The clocks listen in a container's folder; to see it is to be in that pod. A pod that has the trainer by a volume mounts
the folder of all contents, in which `current` leads to one: the volume is always there, whatever is in it.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Final

from joulepath_rules import sha256

__all__ = ["PodFolders", "TrainerFiles", "trainer_package"]

log = logging.getLogger(__name__)

_UID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_ID: Final = re.compile(r"[0-9a-f]{8,128}")
_ENOUGH: Final = 16
"""Of an ID: a socket's path has 107 bytes at most."""
_YOUNG_S: Final = 60.0
"""Of a folder whose container the runtime may not know yet: older ones tell what is there while one is being made."""
_NAME: Final = "joulepath_trainer"
_PARTIAL: Final = "partial"
_CURRENT: Final = "current"


def trainer_package() -> Path:
    """Where the trainer of this release is."""
    found = importlib.util.find_spec(_NAME)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


class TrainerFiles:
    """The trainer's files on the node, in a folder named by their content: what a container mounts never changes."""

    def __init__(self, package: Path, folder: Path, *programs: Path) -> None:
        """Takes the sources of this package, and programs to be beside it; nothing is written yet.

        Raises:
            OSError: They can't be read.
        """
        self._programs = tuple(one.name for one in programs)
        self._sources = _sources(package) | {one.name: one.read_bytes() for one in programs}
        self.folder = folder
        self._content = _content(self._sources)

    def place(self) -> Path:
        """Sees to it that they are there; the folder with the package in it.

        Raises:
            OSError: They can't be written.
        """
        there = self.folder / self._content
        if not (there / _NAME / "bootstrap" / "sitecustomize.py").exists():
            self._copy(there)
        return there

    def check(self) -> None:
        """Puts them there anew, where a machine that lost its power has left something else.

        Raises:
            OSError: They can't be read or written.
        """
        there = self.folder / self._content
        programs = (there / name for name in self._programs)
        found = _sources(there / _NAME) | {one.name: one.read_bytes() for one in programs if one.exists()}
        if _content(found) != self._content:
            self._copy(there)

    def lead(self) -> None:
        """Lets volumes find them: `current` leads to them from now on.

        Raises:
            OSError: It can't be written.
        """
        current, leading = self.folder / _CURRENT, self.folder / f"{_CURRENT}.{_PARTIAL}"
        if current.is_symlink() and str(current.readlink()) == self._content:
            return  # a disk that is full or read-only lets nobody say it again
        leading.unlink(missing_ok=True)
        leading.symlink_to(self._content)
        leading.replace(current)

    def forget(self, used: Collection[Path]) -> None:
        """Removes those of other releases, but for the folders that containers use, and the one that volumes find.

        Of a container that mounts the folder of all nobody knows which it uses.
        """
        if self.folder in used:
            return
        current = self.folder / _CURRENT
        kept = {self.folder / self._content, *used}
        if current.is_symlink():
            kept |= {current, self.folder / current.readlink()}
        for folder in self.folder.glob("*"):
            if folder not in kept:
                log.info("no container uses %s: removed", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, there: Path) -> None:
        partial = self.folder / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        try:
            self._write(partial)
            if there.exists():  # moved away in one step: what is half removed could be taken for whole
                away = Path(tempfile.mkdtemp(dir=self.folder))
                there.rename(away / there.name)
                shutil.rmtree(away, ignore_errors=True)  # what stays of it goes with those of other releases
            partial.rename(there)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)  # on a full disk others need the room
            raise

    def _write(self, partial: Path) -> None:
        for name, text in self._sources.items():
            file = partial / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        for one in (partial, *partial.rglob("*")):  # pods of any user read them, whatever our umask
            one.chmod(0o755 if one.is_dir() or one.name in self._programs else 0o644)
        self.folder.chmod(0o755)


class PodFolders:
    """A folder for each container that has the trainer, named by its pod's UID and the begin of its own ID.

    One that is started anew has another: nobody's end, however late it is told, takes away what the next one has.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made_at_s: dict[str, float] = {}
        """By name, those of this process."""

    def make(self, uid: str, container: str) -> Path:
        """Makes a container's folder unless it is there.

        Raises:
            OSError: It can't be made.
        """
        if not _UID.fullmatch(uid) or not _ID.fullmatch(container):
            raise OSError(f"no folder can have the name of pod {uid[:80]!r} and container {container[:80]!r}")
        made = self._folder / _folder_name(uid, container)
        made.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # who is in a container sees its own folder alone
        made.chmod(0o755)
        self._made_at_s[made.name] = time.monotonic()
        return made

    def remove(self, uid: str, container: str | None = None) -> None:
        """Removes the folder of a container, or of all of a pod, where there is one."""
        if _UID.fullmatch(uid) and (container is None or _ID.fullmatch(container)):
            for folder in self._folder.glob(f"{uid}.{(container or '')[:_ENOUGH]}*"):
                self._made_at_s.pop(folder.name, None)
                shutil.rmtree(folder, ignore_errors=True)

    def forget(self, pods: Collection[str], containers: Collection[tuple[str, str]]) -> None:
        """Removes those of pods that are gone, and those of containers that have ended: neither is among these."""
        since_s = time.monotonic() - _YOUNG_S
        self._made_at_s = {name: made_s for name, made_s in self._made_at_s.items() if made_s > since_s}
        alive = {_folder_name(uid, container) for uid, container in containers} | self._made_at_s.keys()
        for folder in self._folder.glob("*"):
            if folder.name not in alive or folder.name.partition(".")[0] not in pods:
                shutil.rmtree(folder, ignore_errors=True)


def _folder_name(uid: str, container: str) -> str:
    return f"{uid}.{container[:_ENOUGH]}"


def _sources(package: Path) -> dict[str, bytes]:
    return {f"{_NAME}/{file.relative_to(package)}": file.read_bytes() for file in sorted(package.rglob("*.py"))}


def _content(sources: dict[str, bytes]) -> str:
    sources_in_order = (f"{name} {len(text)}\n".encode() + text for name, text in sorted(sources.items()))
    return sha256(b"".join(sources_in_order)).hexdigest()[:16]
