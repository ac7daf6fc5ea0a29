"""One thing that was looked at: whether it is there, what was seen, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from joulepath_cli.commands.preflight.facts import Unread

__all__ = ["Finding", "Verdict", "counted", "names", "number", "unread"]

_MOST_NAMES: Final = 3
_NUMBER: Final = re.compile(r"\d+\.\d+")


class Verdict(StrEnum):
    """What a check came to."""

    OK = "ok"
    LACKS = "lacks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check came to, in words."""

    check: str
    verdict: Verdict
    seen: str
    """A sentence."""
    remedy: str = ""
    """What to do, if there is something to do."""
    command: str = ""
    """What does it, for a shell."""
    needed: bool = True
    """Whether Joulepath does nothing here without it."""

    @property
    def is_missing(self) -> bool:
        """Whether this alone keeps Joulepath from working here."""
        return self.needed and self.verdict is Verdict.LACKS


def unread(check: str, what: Unread, *, needed: bool = True) -> Finding:
    """What can't be told, for want of a right or of an answer."""
    return Finding(check, Verdict.UNKNOWN, f"It can't be told: {what.why}.", what.remedy, needed=needed)


def names(of: Iterable[str]) -> str:
    """`a, b, c and 4 more`."""
    known = sorted(of)
    more = len(known) - _MOST_NAMES
    return ", ".join(known[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def counted(count: int, what: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def number(version: str) -> tuple[int, int] | None:
    """The first two numbers of a version, wherever they stand: (1, 30) of `v1.30.4-eks-1`."""
    if (found := _NUMBER.search(version)) is None:
        return None
    major, minor = found[0].split(".")
    return int(major), int(minor)
