"""Which iterations of a block count, in plan, control and sweep blocks alike, to whoever measures or guards.

It goes by what the training does and never by clocks, so that both arms lose the same. Best are those that are whole
and follow on a whole one. An iteration that was cut, broken off or parted from the next by something else than training
such as an evaluation, disturbs the one after it: clocks return to those of the block at its begin, caches are cold, and
ranks of a pipeline begin it while others still evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final

__all__ = ["Length", "Sort", "counted"]


class Length(StrEnum):
    """What is known of how long an iteration took."""

    WHOLE = "whole"
    """To the begin of the next one."""
    OWN = "own"
    """To where something else began, behind its end."""
    UNKNOWN = "unknown"


class Sort(StrEnum):
    """Of which sort the iterations are that count. Blocks are compared with others of their own sort only: a disturbed
    iteration takes longer, and one of which its own length counts lacks what is behind its end."""

    WHOLE = "whole"
    OWN = "own"
    DISTURBED = "disturbed"


_OF_SORT: Final = {
    Sort.WHOLE: (Length.WHOLE, False),
    Sort.OWN: (Length.OWN, False),
    Sort.DISTURBED: (Length.WHOLE, True),
}
"""Their length, and whether they follow on one that isn't whole; the best first."""


def counted(lengths: Sequence[Length], settled: bool = False) -> tuple[Sort, tuple[int, ...]]:
    """The sort and the places of those that count, of iterations that follow each other; no places if none does.

    Where none would, as in a loop that evaluates every second iteration, those count that follow on a whole one and
    whose own length is known; and where there is none of these either, whole ones that were disturbed.

    settled: whether clocks were those of the block before the first already; else it never counts.
    """

    def places(length: Length, disturbed: bool) -> tuple[int, ...]:
        return tuple(
            at
            for at, one in enumerate(lengths)
            if one is length and (disturbed == (lengths[at - 1] is not Length.WHOLE) if at else settled > disturbed)
        )

    each = ((sort, places(*of)) for sort, of in _OF_SORT.items())
    return next((found for found in each if found[1]), (Sort.WHOLE, ()))
