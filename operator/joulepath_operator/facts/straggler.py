"""A straggler as somebody announces it: a rank, or a whole replica, whose work takes longer than that of others."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from joulepath_crds import GROUP

__all__ = ["STRAGGLER_ANNOTATION", "Announcement", "AnnouncementError", "Factors", "read_announcement"]

STRAGGLER_ANNOTATION: Final = f"{GROUP}/straggler"
"""On a job, beside the one that names its EnergyPlan."""
_MOST: Final = 10.0
_FIELDS: Final = frozenset({"rank", "replica", "slowdown", "until"})
_EXAMPLE: Final = '{"rank": 12, "slowdown": 1.2, "until": "2026-01-31T18:00:00Z"}'

Factors: TypeAlias = dict[int, dict[int, float]]
"""Of each replica that is held up, by stage, how many times as long as usual its work takes."""


class AnnouncementError(ValueError):
    """It can't be read; the message names field, value and remedy."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """`slowdown` is how many times as long the work of that rank, or of every rank of that replica, takes, until that
    time if one is named."""

    slowdown: float
    rank: int | None = None
    replica: int | None = None
    until: datetime | None = None


def read_announcement(text: str) -> Announcement:
    """From the annotation's value.

    Raises:
        AnnouncementError: It is none.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise _error("it is no JSON") from None
    if not isinstance(body, dict):
        raise _error("it is no JSON object")
    if unknown := sorted(body.keys() - _FIELDS):
        raise _error(f"it has a field {unknown[0][:40]!r}; there are {', '.join(sorted(_FIELDS))}")
    if ("rank" in body) == ("replica" in body):
        raise _error("it names neither a rank nor a replica, or both; name the one that is slower")
    return Announcement(_slowdown(body), _index(body, "rank"), _index(body, "replica"), _until(body))


def _slowdown(body: dict[str, Any]) -> float:
    found = body.get("slowdown")
    if isinstance(found, bool) or not isinstance(found, int | float) or not 1 < found <= _MOST:  # no nan either
        raise _error(
            f"slowdown is {_shown(found)}; it is how many times as long work takes, over 1 and up to {_MOST:g}"
        )
    return float(found)


def _index(body: dict[str, Any], name: str) -> int | None:
    found = body.get(name)
    if name in body and (type(found) is not int or found < 0):
        raise _error(f"{name} is {_shown(found)}; it is a whole number, counted from 0")
    return found


def _until(body: dict[str, Any]) -> datetime | None:
    if (found := body.get("until")) is None:
        return None
    try:
        until = datetime.fromisoformat(found)
        if until.tzinfo is None:
            raise ValueError("without a time zone")
        return until.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        raise _error(f"until is {_shown(found)}; it is a time with its zone, as 2026-01-31T18:00:00Z") from None


def _shown(value: Any) -> str:
    return repr(value)[:40]


def _error(what: str) -> AnnouncementError:
    return AnnouncementError(
        f"The job's annotation {STRAGGLER_ANNOTATION} is not followed: {what}. Write it as {_EXAMPLE}, or remove it."
    )
