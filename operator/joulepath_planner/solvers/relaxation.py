"""The linear program with one group for each instruction, as arrays, and the lower bound that any flow proves.

A *flow* gives each dependency a price: joules per second by which the optimum would grow if that dependency took
longer. Whatever the prices, as long as none is negative, paying them instead of keeping the dependencies can only make
the program cheaper (weak duality), and what is left falls apart into instructions and starts that can each be
minimised alone. So `bound` is a true lower bound for every plan, however roughly the flow was found; at the optimal
flow it is the program's own value. Prices that don't balance at a node are not forbidden but paid for: a start lies
between its earliest and its latest time, and the worse of the two is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask, sums
from joulepath_planner.graph.graph import Graph, binding_wraps, least_period_s, path_lengths
from joulepath_planner.graph.options import Options

__all__ = ["Relaxation"]


@dataclass(frozen=True, slots=True)
class Relaxation:
    """Columns 0 to size - 1 are starts, the last one is the period. Edges are sorted by source:

        column[target] + (column[-1] if it is a wrap) - column[source] - duration[source] >= gap

    owner, width_s, slope_w: the steps of each instruction's hull, in order. before_s, after_s: the longest path, with
    least durations, from the first start to each start, and from there to the end of the period; -inf without one.
    spans: within how many periods all starts of an iteration lie. least_period_s: with least durations.
    """

    size: int
    least_s: Floats
    constant_j: float
    idle_w: float
    owner: Ints
    width_s: Floats
    slope_w: Floats
    source: Ints
    target: Ints
    gap_s: Floats
    wrap: Mask
    before_s: Floats
    after_s: Floats
    spans: int
    least_period_s: float

    @classmethod
    def of(cls, graph: Graph, options: Sequence[Options], idle_w: float) -> Relaxation:
        """options: of each instruction alone. idle_w: what a second of waiting costs on all ranks together."""
        hulls, owner, width, slope = _steps(options)
        least = np.array([hull[0][0] for hull in hulls])
        before, after = path_lengths(graph, least.tolist())
        wraps = binding_wraps(graph, least.tolist(), before, after)
        source, target, gap = (np.array(column) for column in zip(*graph.edges, *wraps, strict=True))
        wrap = np.arange(len(source)) >= len(graph.edges)
        order = np.argsort(source, kind="stable")
        return cls(
            size=len(least),
            least_s=np.append(least, 0.0),
            constant_j=float(sum(hull[1][0] for hull in hulls)),
            idle_w=idle_w,
            owner=owner,
            width_s=width,
            slope_w=slope,
            source=source[order],
            target=target[order],
            gap_s=gap[order],
            wrap=wrap[order],
            before_s=np.array(before),
            after_s=np.array(after),
            spans=len(wraps) + 1,
            least_period_s=least_period_s(graph, least.tolist()) if len(wraps) > 1 else after[0],
        )

    def coarser(self, options: Sequence[Options], most: int) -> Relaxation:
        """The same with at most so many steps for each instruction: its optimum is no lower."""
        _, owner, width, slope = _steps(options, most)
        return replace(self, owner=owner, width_s=width, slope_w=slope)

    def window(self, at_least_s: float, at_most_s: float) -> tuple[Floats, Floats]:
        """The earliest and the latest value of each column, for periods in this range, where the first start is 0."""
        far = self.spans * at_most_s  # no two starts of an iteration are further apart
        earliest = np.where(np.isfinite(self.before_s), self.before_s, -far)
        latest = np.where(np.isfinite(self.after_s), at_most_s - self.after_s, far)
        latest[0] = 0.0
        return np.append(earliest, at_least_s), np.append(np.maximum(latest, earliest), at_most_s)

    def bound(self, flow_w: Floats, at_least_s: float, at_most_s: float) -> tuple[float, float]:
        """(joules that no plan with a period in this range goes below, their growth per second of its end)."""
        earliest, latest = self.window(at_least_s, at_most_s)
        paid = sums(self.source, flow_w, self.size + 1)
        left = paid - sums(self.target, flow_w, self.size + 1)
        left[-1] = self.idle_w - float(flow_w[self.wrap].sum())
        steps = np.minimum(0.0, self.slope_w + paid[self.owner]) @ self.width_s
        fixed = paid @ self.least_s + flow_w @ self.gap_s
        starts = np.minimum(left * earliest, left * latest).sum()
        growth = left[-1] + np.minimum(0.0, left[:-1]) @ np.isfinite(self.after_s)
        return self.constant_j + float(steps + fixed + starts), float(growth)


_Hull: TypeAlias = tuple[list[float], list[float]]


def _steps(options: Sequence[Options], most: int | None = None) -> tuple[list[_Hull], Ints, Floats, Floats]:
    """The hull (seconds, effective joules) of each instruction, and owner, width and slope of its steps."""
    known = {key: _hull(option, most) for key, option in {id(option): option for option in options}.items()}
    hulls = [known[id(option)] for option in options]
    steps = {key: (np.diff(times), np.diff(joules) / np.diff(times)) for key, (times, joules) in known.items()}
    counts = [len(times) - 1 for times, _ in hulls]
    width, slope = (np.concatenate([steps[id(option)][part] for option in options]) for part in (0, 1))
    return hulls, np.repeat(np.arange(len(hulls)), counts), width, slope


def _hull(option: Options, most: int | None) -> _Hull:
    times, joules = ([values[choice] for choice in option.hull] for values in (option.total_s, option.effective_j))
    while most is not None and len(times) > most + 1:
        # The corner whose triangle with its neighbours is the smallest is missed the least.
        corner = min(
            range(1, len(times) - 1),
            key=lambda k: abs(
                (times[k] - times[k - 1]) * (joules[k + 1] - joules[k - 1])
                - (times[k + 1] - times[k - 1]) * (joules[k] - joules[k - 1])
            ),
        )
        del times[corner], joules[corner]
    return times, joules
