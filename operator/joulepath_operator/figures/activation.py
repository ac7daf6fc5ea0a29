"""From which iteration on a new plan holds: far enough ahead that every node has heard of it by then."""

from __future__ import annotations

import math
from typing import Final

from joulepath_operator.facts.gang import Gang

__all__ = ["activation"]

_DELIVERY_S: Final = 2.0
"""Longest time from the operator's write until every agent has seen it."""


def activation(gang: Gang) -> int:
    """That iteration, counted from where the ranks are by now: their reports have an age."""
    per_iteration = gang.iteration_time_s or _DELIVERY_S
    now = max(
        max(rank.iteration, rank.staged_at_iteration or 0) + gang.age_s[rank.rank] / per_iteration
        for rank in gang.ranks
    )
    return math.ceil(now) + math.ceil(_DELIVERY_S / per_iteration) + 2
