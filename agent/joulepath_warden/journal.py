"""The journal: which GPUs may be locked. Only the holder of the lock file writes it.

A GPU's UUID is on the disk before its clock is first touched, and leaves it when the clock is reset for good; NVML
itself can't tell who locked a clock. A line with a checksum ends the file. A file that is missing, can't be read or has
any damage names `EVERY_GPU`: then all that NVML shows are in doubt.
"""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Final

__all__ = ["EVERY_GPU", "Journal", "is_uuid"]

EVERY_GPU: Final = "*"
_NAME: Final = "locked-gpus"
_UUID: Final = re.compile(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def is_uuid(text: str) -> bool:
    """Whether NVML could name a GPU so."""
    return _UUID.fullmatch(text) is not None


class Journal:
    """A small file, replaced whole and synced."""

    def __init__(self, state_dir: Path) -> None:
        """Reads what is there."""
        self._path = state_dir / _NAME
        self.trouble = ""
        """Why every GPU is in doubt, in a sentence; empty where the journal says what is."""
        try:
            self.entries = _read(self._path.read_bytes())
        except FileNotFoundError:
            self.trouble = f"there is no journal at {self._path}"
        except (OSError, ValueError) as error:
            self.trouble = f"the journal {self._path} can't be read ({error})"
        if self.trouble:
            self.entries = frozenset({EVERY_GPU})
        self._written: frozenset[str] | None = None if self.trouble else self.entries

    def add(self, *uuids: str) -> None:
        """Notes GPUs; on the disk when this returns.

        Raises:
            OSError: They aren't: their clocks may not be touched.
        """
        self._change(self.entries | set(uuids))

    def remove(self, *entries: str) -> None:
        """Strikes what has been reset.

        Raises:
            OSError: The file still names it, until the next change.
        """
        self._change(self.entries - set(entries))

    def _change(self, entries: frozenset[str]) -> None:
        self.entries = entries
        if entries == self._written:
            return
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.write(_written(entries))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._written = entries


def _written(entries: Collection[str]) -> bytes:
    body = "".join(f"{entry}\n" for entry in sorted(entries)).encode()
    return body + b"crc32 %08x\n" % zlib.crc32(body)


def _read(content: bytes) -> frozenset[str]:
    entries = content.decode("ascii").split("\n")[:-2]
    for entry in entries:
        if entry != EVERY_GPU and not is_uuid(entry):
            raise ValueError(f"{entry!r:.60} is no UUID of a GPU")
    if content != _written(entries):
        raise ValueError("its checksum is wrong")
    return frozenset(entries)
