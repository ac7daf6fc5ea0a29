"""What clocks a group of instructions can choose from, and what each choice costs.

A *group* is a set of instructions of one rank that share a clock (one instruction, or a phase, or a stage: the
granularity). Lengthening an instruction by a second saves a second of waiting at blocking power, so what counts
is its *effective energy*: joules minus blocking power x seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from joulepath_planner.inputs.instruction import Instruction, StageKind
from joulepath_planner.inputs.profile import Profile

__all__ = ["OptionTable", "Options"]

_SAME: Final = 1e-9
"""Relative: sums of seconds this close are equal."""


@dataclass(frozen=True, slots=True)
class Options:
    """The clocks of a group worth choosing, from the least total time to the least effective energy.

    times_s[k][j]: seconds of one instruction of keys[j] at clocks_mhz[k]; total_s and effective_j: sums over the
    whole group. A clock that another one beats in every time and in energy is left out.
    hull: the indices on the lower convex hull of (total_s, effective_j).
    """

    keys: tuple[StageKind, ...]
    clocks_mhz: tuple[int, ...]
    times_s: tuple[tuple[float, ...], ...]
    total_s: tuple[float, ...]
    effective_j: tuple[float, ...]
    hull: tuple[int, ...]

    def durations(self, choice: int, members: Sequence[StageKind]) -> list[float]:
        times = dict(zip(self.keys, self.times_s[choice], strict=True))
        return [times[key] for key in members]


def _lower_hull(times: Sequence[float], costs: Sequence[float]) -> tuple[int, ...]:
    """Indices of the lower convex hull, from the least time to the least cost; times must ascend."""
    hull: list[int] = []
    for index in range(int(np.argmin(costs)) + 1):
        while len(hull) > 1 or (hull and costs[index] <= costs[hull[-1]] and times[index] == times[hull[-1]]):
            if len(hull) > 1:
                a, b = hull[-2], hull[-1]
                turn = (times[b] - times[a]) * (costs[index] - costs[a]) - (costs[b] - costs[a]) * (
                    times[index] - times[a]
                )
                if turn > 0:
                    break
            hull.pop()
        hull.append(index)
    return tuple(hull)


class OptionTable:
    """Options of groups, worked out once for each mix of instructions.

    reserve: how much longer, as a fraction, a clock below the default one is taken to last, at the same effective
    energy: room for what jitters. gpus: how many a stage runs on, 1 where it isn't named; joules are of all of them.
    """

    def __init__(
        self, profile: Profile, power_w: float, reserve: float = 0.0, gpus: Mapping[int, int] | None = None
    ) -> None:
        self._reserve = reserve
        self._gpus = gpus or {}
        self._profile = profile
        self._power_w = power_w
        self._known: dict[tuple[bool, tuple[tuple[StageKind, int], ...]], Options] = {}

    def of(self, members: Sequence[Instruction], *, every: bool = False) -> Options:
        """every: with clocks that are sooner done with all the group, but later with one of its kinds, than the default
        one. Where noise makes such clocks, no option need be the fastest."""
        if len(members) == 1:
            mix: tuple[tuple[StageKind, int], ...] = (((members[0].stage, members[0].kind), 1),)
        else:
            mix = tuple(sorted(Counter((one.stage, one.kind) for one in members).items()))
        if (every, mix) not in self._known:
            self._known[every, mix] = self._build(mix, every)
        return self._known[every, mix]

    def _build(self, mix: tuple[tuple[StageKind, int], ...], every: bool) -> Options:
        keys = tuple(key for key, _ in mix)
        counts = np.array([count for _, count in mix], dtype=float)
        series = [{point.clock_mhz: point for point in self._profile.points[key]} for key in keys]
        clocks = sorted(set.intersection(*(set(points) for points in series)), reverse=True)
        times = np.array([[points[clock].time_s for points in series] for clock in clocks])
        energies = np.array([[points[clock].energy_j for points in series] for clock in clocks])
        gpus = np.array([self._gpus.get(stage, 1) for (stage, _), _ in mix])
        effective = (energies - self._power_w * times) @ (counts * gpus)
        times[1:] *= 1 + self._reserve
        total = times @ counts
        # With several kinds, a total under the default clocks' can still delay one kind: such a clock must beat all.
        allows = every or len(keys) == 1
        allowed = [k for k in range(len(clocks)) if allows or total[k] >= total[0] or all(times[k] <= times[0])]
        delays = [not all(times[k] <= times[0]) for k in range(len(clocks))]
        order = sorted(allowed, key=lambda k: (total[k], delays[k], effective[k], -clocks[k]))
        kept: list[int] = []
        for k in order:
            # Equal sums of other parts are one option: between two of them a second would have no price.
            if kept and not every and total[k] <= total[kept[-1]] * (1 + _SAME):
                if len(keys) == 1 < len(kept) and effective[k] < effective[kept[-1]]:
                    kept[-1] = k
                continue
            if not any(effective[j] <= effective[k] and bool(np.all(times[j] <= times[k])) for j in kept):
                kept.append(k)
        total_s = tuple(float(total[k]) for k in kept)
        effective_j = tuple(float(effective[k]) for k in kept)
        return Options(
            keys=keys,
            clocks_mhz=tuple(clocks[k] for k in kept),
            times_s=tuple(tuple(float(value) for value in times[k]) for k in kept),
            total_s=total_s,
            effective_j=effective_j,
            hull=_lower_hull(total_s, effective_j),
        )
