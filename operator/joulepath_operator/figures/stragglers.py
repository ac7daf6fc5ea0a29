"""Which pipelines of a job are held up, and by how much, stage by stage: as it is announced, or as ranks tell."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from math import floor
from typing import Any, Final

from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.labels import STRAGGLER_ANNOTATION
from joulepath_operator.facts.request import Factors

__all__ = ["Announcement", "AnnouncementError", "announced", "read_announcement", "told_by_ranks"]

_USUAL: Final = 4
"""What one rank of so many is slower by at most is what the job is: larger batches, a cap on all of its GPUs."""
_LEAST: Final = 0.03
_EVEN: Final = 0.05
_STEP: Final = 100
"""Factors are told in such parts, rounded down: who is stretched too far holds the job up himself."""
_MOST: Final = 10.0
_FIELDS: Final = frozenset({"rank", "replica", "slowdown", "until"})
_EXAMPLE: Final = '{"rank": 12, "slowdown": 1.2, "until": "2026-01-31T18:00:00Z"}'


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


def announced(gang: Gang, told: Announcement) -> Factors:
    """What an announcement means for this gang; tensor-parallel peers of a rank run in step with it.

    Raises:
        AnnouncementError: There is no such rank, or no such replica.
    """
    name, number = ("rank", told.rank) if told.rank is not None else ("replica", told.replica)
    if told.rank is not None:
        slow = [rank for rank in gang.ranks if rank.rank == told.rank]
    else:
        slow = [rank for rank in gang.ranks if rank.coordinates.data == told.replica]
    if not slow:
        last = max(rank.rank if told.rank is not None else rank.coordinates.data for rank in gang.ranks)
        raise AnnouncementError(
            f"The job's annotation {STRAGGLER_ANNOTATION} is not followed: {name} is {number}, but the job has those "
            f"from 0 to {last}. Name one of these, or remove it."
        )
    factors: Factors = {}
    for rank in slow:
        factors.setdefault(rank.coordinates.data, {}).update(dict.fromkeys(rank.stages, told.slowdown))
    return factors


def told_by_ranks(gang: Gang) -> Factors:
    """What ranks tell of their own work, beside what it is for all of them; nothing where none is slower."""
    slowdowns = sorted(rank.slowdown for rank in gang.ranks)
    usual = slowdowns[len(slowdowns) // _USUAL]
    factors: Factors = {}
    for rank in gang.ranks:
        if (slower := rank.slowdown / usual) > 1 + _LEAST:
            stages = factors.setdefault(rank.coordinates.data, {})
            stages |= {stage: max(stages.get(stage, 1.0), floor(slower * _STEP) / _STEP) for stage in rank.stages}
    whole = {stage for rank in gang.ranks for stage in rank.stages}
    return {replica: _evened(stages, whole) for replica, stages in factors.items()}


def _evened(stages: dict[int, float], whole: set[int]) -> dict[int, float]:
    """One factor, the least, of a pipeline that is slower as a whole: by a little more here and there is noise, and a
    plan that uses slack up would be late by it."""
    least = min(stages.values())
    return dict.fromkeys(stages, least) if stages.keys() == whole and max(stages.values()) - least <= _EVEN else stages
