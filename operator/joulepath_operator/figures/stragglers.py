"""Which pipelines of a job are held up, and by how much, stage by stage."""

from __future__ import annotations

from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.straggler import STRAGGLER_ANNOTATION, Announcement, AnnouncementError, Factors

__all__ = ["announced"]


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
