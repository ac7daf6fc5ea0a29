"""Text from a file: UTF-8, and no larger than what can be read in seconds."""

from __future__ import annotations

from os import PathLike
from typing import Final

from joulepath_planner.errors import ArgumentError, PlannerError

__all__ = ["read_text"]

_MOST_BYTES: Final = 16_000_000


def read_text(path: str | PathLike[str], error: type[PlannerError], most_bytes: int = _MOST_BYTES) -> str:
    """The text of a file or a pipe.

    error: what is raised where it holds no text, or too much of it.

    Raises:
        PlannerError: It is too large, or no text.
        OSError: It can't be read.
    """
    if not isinstance(path, str | PathLike):
        raise ArgumentError(f"path is {path!r}; it must be the path of a file.")
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as wrong:
        wrong.filename = path
        raise
    if len(data) > most_bytes:
        raise error(f"{path} has over {most_bytes / 1e6:g} MB; give a file with only what is needed, up to that size.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        raise error(f"{path} is no text in UTF-8 (see byte {wrong.start}); save it as text in UTF-8.") from None
    if "\0" in text:
        raise error(f"{path} is no text, it has zero bytes in it; save it as text in UTF-8.")
    return text
