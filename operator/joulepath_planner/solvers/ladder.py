"""What groups can buy: the steps of their hulls, as both of HiGHS's linear programs have them for columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulepath_planner.arrays import Floats, Ints
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.solution import Solution

__all__ = ["Ladder"]


@dataclass(frozen=True, slots=True)
class Ladder:
    """A *part* is all of one stage and kind in a group: its instructions last equally long.

    part_of: of each node; least_s: of each part. width_s, slope_w: of each step, its seconds for the whole group and
    what one of them costs; ends: where the steps of each group end, after a 0. part, step, ratio: a second of that step
    makes each instruction of that part so much longer.
    """

    constant_j: float
    part_of: Ints
    least_s: Floats
    width_s: Floats
    slope_w: Floats
    ends: Ints
    part: Ints
    step: Ints
    ratio: Floats

    @classmethod
    def of(
        cls, graph: Graph, groups: Sequence[Sequence[int]], options: Sequence[Options], *, whole: bool = False
    ) -> Ladder:
        """whole: steps not from a point of the hull to the next, but from the first option to each, itself too, all 1
        wide: a group takes one of them."""
        part_of = np.empty(len(graph.instructions), dtype=np.intp)
        constant_j, least, widths, slopes, ends = 0.0, list[float](), list[float](), list[float](), [0]
        parts, steps, ratios = list[int](), list[int](), list[float]()
        for members, option in zip(groups, options, strict=True):
            of = list(range(len(option.total_s)) if whole else option.hull)
            times, joules, total = (np.array(row)[of] for row in (option.times_s, option.effective_j, option.total_s))
            if whole:
                longer, dearer, width = times - times[0], joules - joules[0], np.ones(len(of))
            else:
                longer, dearer, width = np.diff(times, axis=0), np.diff(joules), np.diff(total)
            number = {key: len(least) + place for place, key in enumerate(option.keys)}
            for node in members:
                one = graph.instructions[node]
                part_of[node] = number[one.stage, one.kind]
            for part in number.values():
                parts += [part] * len(width)
                steps += range(len(widths), len(widths) + len(width))
            constant_j += float(joules[0])
            least += times[0].tolist()
            ratios += (longer / width[:, None]).T.ravel().tolist()
            widths += width.tolist()
            slopes += (dearer / width).tolist()
            ends.append(len(widths))
        return cls(
            constant_j=constant_j,
            part_of=part_of,
            least_s=np.array(least),
            width_s=np.array(widths),
            slope_w=np.array(slopes),
            ends=np.array(ends, dtype=np.intp),
            part=np.array(parts, dtype=np.intp),
            step=np.array(steps, dtype=np.intp),
            ratio=np.array(ratios),
        )

    def solution(self, period_s: float, bought_s: Floats, objective_j: float, slope_w: float) -> Solution:
        """From the columns of a program whose costs are these steps' and the waits'."""
        extra = np.diff(np.append(0.0, np.cumsum(bought_s))[self.ends])
        return Solution(float(period_s), self.constant_j + objective_j, tuple(extra.tolist()), slope_w)
