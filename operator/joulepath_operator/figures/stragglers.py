"""Which pipelines of a job are held up, and by how much, stage by stage: as it is announced, or as ranks tell."""

from __future__ import annotations

from math import floor
from typing import Final

from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.straggler import STRAGGLER_ANNOTATION, Announcement, AnnouncementError, Factors

__all__ = ["announced", "told_by_ranks"]

_USUAL: Final = 4
"""What one rank of so many is slower by at most is what the job is: larger batches, a cap on all of its GPUs."""
_LEAST: Final = 0.03
_EVEN: Final = 0.05
_STEP: Final = 100
"""Factors are told in such parts, rounded down: who is stretched too far holds the job up himself."""


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
