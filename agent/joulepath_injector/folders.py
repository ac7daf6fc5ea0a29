"""Folders of the node that containers mount: the trainer's files, once for each content, and one for each pod.

The clocks listen in a pod's folder; to see it is to be that pod.
"""

from __future__ import annotations

import importlib.util
import logging
import re
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Final

from joulepath_rules import sha256

__all__ = ["PodFolders", "TrainerFiles", "trainer_package"]

log = logging.getLogger(__name__)

_UID: Final = re.compile(r"[0-9A-Za-z-]{1,64}")
_NAME: Final = "joulepath_trainer"
_PARTIAL: Final = "partial"


def trainer_package() -> Path:
    """Where the trainer of this release is."""
    found = importlib.util.find_spec(_NAME)
    assert found is not None
    assert found.submodule_search_locations
    return Path(found.submodule_search_locations[0])


class TrainerFiles:
    """The trainer's files on the node, in a folder named by their content: what a container mounts never changes."""

    def __init__(self, package: Path, folder: Path) -> None:
        """Takes the sources of this package; nothing is written yet.

        Raises:
            OSError: They can't be read.
        """
        self._sources = _sources(package)
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
        if _content(_sources(there / _NAME)) != self._content:
            self._copy(there)

    def forget(self, used: Collection[Path]) -> None:
        """Removes those of other releases, but for the folders that containers use."""
        for folder in self.folder.glob("*"):
            if folder.name != self._content and folder not in used:
                log.info("no container uses %s: removed", folder)
                shutil.rmtree(folder, ignore_errors=True)

    def _copy(self, there: Path) -> None:
        partial = self.folder / _PARTIAL
        shutil.rmtree(partial, ignore_errors=True)
        for name, text in self._sources.items():
            file = partial / _NAME / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text)
        for one in (partial, *partial.rglob("*")):  # pods of any user read them, whatever our umask
            one.chmod(0o755 if one.is_dir() else 0o644)
        self.folder.chmod(0o755)
        if there.exists():  # moved away in one step: what is half removed could be taken for whole
            away = Path(tempfile.mkdtemp(dir=self.folder))
            there.rename(away / there.name)
            shutil.rmtree(away, ignore_errors=True)  # what stays of it goes with those of other releases
        partial.rename(there)


class PodFolders:
    """A folder for each pod that has the trainer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, uid: str) -> Path:
        """Makes a pod's folder unless it is there.

        Raises:
            OSError: It can't be made.
        """
        if not _UID.fullmatch(uid):
            raise OSError(f"no folder can have the name of the pod's UID, {uid[:80]!r}")
        made = self._folder / uid
        made.mkdir(parents=True, exist_ok=True)
        self._folder.chmod(0o700)  # who is in a pod sees its own folder alone
        made.chmod(0o755)
        return made

    def remove(self, uid: str) -> None:
        """Removes a pod's folder, if it has one."""
        if _UID.fullmatch(uid):
            shutil.rmtree(self._folder / uid, ignore_errors=True)

    def forget(self, alive: Collection[str]) -> None:
        """Removes those of pods that are gone."""
        for folder in self._folder.glob("*"):
            if folder.name not in alive:
                self.remove(folder.name)


def _sources(package: Path) -> dict[str, bytes]:
    return {str(file.relative_to(package)): file.read_bytes() for file in sorted(package.rglob("*.py"))}


def _content(sources: dict[str, bytes]) -> str:
    sources_in_order = (f"{name} {len(text)}\n".encode() + text for name, text in sorted(sources.items()))
    return sha256(b"".join(sources_in_order)).hexdigest()[:16]
