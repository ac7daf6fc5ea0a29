"""Files that a command writes: nothing is overwritten that isn't of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from joulepath_planner import ArgumentError

__all__ = ["PERSEUS", "SVG", "check_outputs", "write"]

SVG: Final = b"<svg"
PERSEUS: Final = b"[\n["
"""What files of a kind begin with."""


def check_outputs(paths: Sequence[Path], begins: bytes) -> None:
    """Refuse to write where nothing can be written, or where something of another kind is, such as the profile.

    Before anything is computed, so that nothing computed is lost.

    Raises:
        ArgumentError: A file is of another kind, is a folder, has no folder, or is given twice.
        OSError: What is there can't be read.
    """
    for path in paths:
        if path.is_dir() or not path.parent.is_dir():
            what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise ArgumentError(f"{path} can't be written, {what}; name a file in a folder that is there.")
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(begins)) not in (b"", begins):
                    raise ArgumentError(
                        f"{path} is there, and holds something else than what would be written; name another file, or "
                        "remove it first."
                    )
    if len({path.resolve() for path in paths}) < len(paths):
        raise ArgumentError(f"{paths[0]} is named twice; name a file for each picture.")


def write(path: Path, text: str) -> None:
    """Write a file as UTF-8.

    Raises:
        OSError: It can't be written; the error names the file.
    """
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        error.filename = path
        raise
