"""Which iterations of a block count, in plan, control and sweep blocks alike, to whoever measures or guards.

One that was cut doesn't: broken off, or followed by something else than training, such as an evaluation, whose length
says nothing of clocks. Nor does the one after it, at whose begin clocks return to those of the block and caches are
cold. That goes by what the training does and never by clocks, so both arms lose the same.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["counted"]


def counted(whole: Sequence[bool], settled: bool = False) -> tuple[int, ...]:
    """The places of those that count, of iterations that follow each other.

    Where none would, as in a loop that evaluates every second iteration, those after one that was cut do: they are
    whole, and but for a switch of clocks more as any other.

    whole: whether each was, and wasn't cut. settled: whether clocks were those of the block before the first already;
    else it never counts.
    """
    places = [at for at, one in enumerate(whole) if one and (at or settled)]
    return tuple(at for at in places if not at or whole[at - 1]) or tuple(places)
