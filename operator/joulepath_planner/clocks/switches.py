"""The fewest switches among plans that cost the same.

A clock may be changed for one at which the instruction takes no longer and no more effective energy: clocks of equal
cost, and any clock for what doesn't depend on it. Among all such choices of a rank, dynamic programming along its order
finds one with the fewest changes, the one from the last instruction to the next iteration's first included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from joulepath_planner.inputs.instruction import Instruction
from joulepath_planner.inputs.profile import Profile

__all__ = ["calm"]

_SAME: Final = 1e-9
"""Relative: seconds and joules that differ by less are the same."""


def calm(
    profile: Profile, power_w: float, order: Sequence[Instruction], clocks: Sequence[int | None]
) -> tuple[int | None, ...]:
    """Clocks of equal cost for the instructions of one rank, with the fewest changes; as given where none is saved.
    None is the default clock."""
    default = profile.default_clock_mhz(order[0].stage)
    clocks_mhz = [clock or default for clock in clocks]
    known: dict[tuple[int, str, int], tuple[int, ...]] = {}

    def equal(one: Instruction, clock: int) -> tuple[int, ...]:
        key = one.stage, one.kind, clock
        if key not in known:
            known[key] = _equal(profile, power_w, one, clock)
        return known[key]

    choices = [equal(one, clock) for one, clock in zip(order, clocks_mhz, strict=True)]
    if all(len(some) == 1 for some in choices):
        return tuple(clocks)
    found = [_fewest(choices, first) for first in choices[0]]
    best = min(found, key=_changes)
    if _changes(best) >= _changes(clocks_mhz):
        return tuple(clocks)
    return tuple(None if clock == default else clock for clock in best)


def _equal(profile: Profile, power_w: float, one: Instruction, clock_mhz: int) -> tuple[int, ...]:
    """The clock itself first, then those that cost no more, from the highest down."""
    seconds, joules = profile.at(one.stage, one.kind, clock_mhz)
    effective = joules - power_w * seconds
    same = [
        point.clock_mhz
        for point in profile.points[one.stage, one.kind]
        if point.time_s <= seconds * (1 + _SAME)
        and point.energy_j - power_w * point.time_s <= effective + _SAME * joules
        and point.clock_mhz != clock_mhz
    ]
    return clock_mhz, *same


def _fewest(choices: Sequence[tuple[int, ...]], first: int) -> list[int]:
    """With the first clock given: the fewest changes along the order and back to it."""
    costs = [{first: 0}]
    for some in choices[1:]:
        before = costs[-1]
        least = min(before.values()) + 1
        costs.append({clock: min(least, before.get(clock, least)) for clock in some})
    ends = costs[-1]
    here = min(ends, key=lambda clock: ends[clock] + (clock != first))
    path = [here]
    for before in costs[-2::-1]:
        cheapest = min(before, key=before.__getitem__)
        if before.get(here, math.inf) > before[cheapest] + 1:
            here = cheapest
        path.append(here)
    return path[::-1]


def _changes(clocks_mhz: Sequence[int]) -> int:
    return sum(before != after for before, after in zip([clocks_mhz[-1], *clocks_mhz], clocks_mhz, strict=False))
