"""From the linear program's seconds to clocks, where every instruction has a clock of its own: for many at once.

Clocks are chosen in *traversals* of the graph. Forward, from the earliest starts on, each instruction takes the slowest
clock with which it ends before its latest end, so that what one can't use is left to those after it; backward the same
from the end. In the first traversal latest ends are the linear program's, and no instruction goes further than the next
point of the hull above its linear-program time, so that all ranks follow the linear program's timeline within about a
clock's step. The next ones go as far as a second saves many joules, the last one wherever there is room. No traversal
passes the period.

Traversals spend slack where they come first, not where it saves most. So several assignments are rounded together, some
rounded at random, and the best one is then varied: a few instructions, drawn at random, are put back by a clock or
two, the others get the slack, and what costs less is kept. The pipeline is cut into windows of some levels for that,
at whose borders all times are held, so that each window keeps its own best variant. All is drawn from one fixed seed:
the same problem, the same plan. Draws are the same for all periods, so that what is chosen for one doesn't depend on
the others.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from joulepath_planner.arrays import Floats, Ints, Mask
from joulepath_planner.graph.graph import Graph
from joulepath_planner.graph.network import RESOLUTION_S, Network
from joulepath_planner.graph.options import Options
from joulepath_planner.solvers.solution import SOLVER_TOLERANCE_S

__all__ = ["Effort", "Rounder", "effort"]

_Choices: TypeAlias = Ints

_SEED: Final = 20241104
_PRICES: Final = 3
"""Between the first traversal and the last, the slack is offered to the steps that save most, so many times."""
_NEAR: Final = 0.1
"""A time this little above a point of the hull, as a share of the way to the next, aims at that point."""
_WINDOWS: Final = (8, 16, 32, 64)
"""Levels of a window, within which a variation is judged by itself."""
_CUTS: Final = (2e-6, 2e-5, 2e-4, np.inf)
"""Of the period: what is cut off the linear program's seconds where they exceed it."""
_PUT_BACK: Final = (0.5, 1, 2, 5, 10, 20)
"""How many instructions of a window a variation puts back, on average."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many assignments are rounded together for each period, and how many times the best one is varied."""

    variants: int
    variations: int
    budget_s: float = 0.0
    """Go on varying for so many seconds; the result then depends on how fast the machine is."""


def effort(size: int, *, together: bool = False) -> Effort:
    """What pays: much for small pipelines, where each instruction counts, little for large ones.

    together: for a period that is rounded with others.
    """
    columns, work = (600, 4_500) if together else (40_000, 300_000)
    variants = int(np.clip(columns / size, 4, 16))
    return Effort(variants, int(np.clip(work / (size * variants), 3, min(24, 4 + size // 5))))


class _Frame(NamedTuple):
    """Starts that nothing may fall below, and ends that nothing may pass; each feels only some of them."""

    floors: Floats
    ceilings: Floats


class Rounder:
    """The clocks of every instruction for one graph and one table of options."""

    def __init__(self, graph: Graph, options: Sequence[Options], network: Network | None = None) -> None:
        self._network = network or Network(graph)
        # A *menu* is the options of all instructions that have the same.
        menus: dict[int, int] = {}
        menu = [menus.setdefault(id(option), len(menus)) for option in options]
        self._of = [options[menu.index(number)] for number in range(len(menus))]
        self._menu = np.array(menu, dtype=np.intp)[self._network.nodes]
        self._width = max(len(option.clocks_mhz) for option in self._of)
        self._seconds = np.full((len(self._of), self._width), np.inf)
        self._joules = np.full((len(self._of), self._width), np.inf)
        for number, option in enumerate(self._of):
            self._seconds[number, : len(option.total_s)] = option.total_s
            self._joules[number, : len(option.total_s)] = option.effective_j
        self._slowest = np.array([[len(option.total_s) - 1] for option in self._of])[self._menu]
        self._down_on_hull, self._next_on_hull = (
            np.zeros((len(self._of), self._width), dtype=np.intp) for _ in range(2)
        )
        for number, option in enumerate(self._of):
            hull, here = np.array(option.hull), np.arange(len(option.total_s))
            self._next_on_hull[number, here] = hull[np.minimum(np.searchsorted(hull, here, "right"), len(hull) - 1)]
            self._down_on_hull[number, here] = hull[np.searchsorted(hull, here, "right") - 1]
        # All menus' times in one ascending row, each one's shifted by its number times the stride.
        self._stride = 2 * max(option.total_s[-1] for option in self._of) + 1.0
        shifts = self._stride * np.arange(len(self._of))[:, None]
        self._ladder = (np.minimum(self._seconds, 0.9 * self._stride) + shifts).ravel()

    def choose(
        self, periods_s: Sequence[float], extra_s: Sequence[Sequence[float]], how: Effort
    ) -> list[list[int] | None]:
        """For each period the option of each node, from the seconds over the least that the linear program gave it;
        None where not even the fastest clocks keep the period."""
        source = np.random.default_rng(_SEED)
        period = np.repeat(np.array(periods_s), how.variants)
        extra = np.repeat(np.array(extra_s).T[self._network.nodes], how.variants, axis=1)
        choices = self._rounded(extra, period, source, how.variants)
        best, periods = self._best(choices, len(periods_s)), np.array(periods_s)
        feasible = self._network.earliest_s(self._times(best), periods)[1]
        until, variation = time.monotonic() + how.budget_s, 0
        while feasible.any() and (variation < how.variations or time.monotonic() < until):
            best[:, feasible] = self._vary(best[:, feasible], periods[feasible], source, how.variants)
            variation += 1
        found = np.empty_like(best)
        found[self._network.nodes] = best
        return [column.tolist() if fits else None for column, fits in zip(found.T, feasible, strict=True)]

    def _rounded(self, extra: Floats, period: Floats, source: np.random.Generator, variants: int) -> _Choices:
        """Choices that keep their period wherever any do, after the first traversals. Variants differ in where they use
        the hull only, and from the third on some instructions, drawn at random, aim no further than they are."""
        seconds = self._kept_seconds(extra, period)
        below, goals = self._beside(seconds)
        drawn = (np.arange(variants) > 1) & (source.random((len(goals), variants)) < 0.5)
        drawn = np.tile(drawn, len(period) // variants)
        goals = np.where(drawn, below, goals)
        sparse = np.arange(len(period)) % 2 > 0
        starts = self._network.earliest_s(seconds, period)[0]
        frame = self._frame(starts[self._network.firsts], period, seconds.shape)
        choices = np.zeros(seconds.shape, dtype=np.intp)
        self._forward(choices, goals, frame, self._latest_ends_s(seconds, frame), sparse)
        return self._alternate(choices, [*self._price_caps(), self._slowest], frame, sparse)

    def _kept_seconds(self, extra: Floats, period: Floats) -> Floats:
        """The linear program's seconds, where they are all but a clock's those of that clock. Where they exceed the
        period by rounding, each is cut by what is missing: a path too long is then either cut by as much, or has none
        of them left."""
        least = self._seconds[self._menu, 0][:, None]
        nearest = self._times(np.maximum(self._slowest_within(slice(None), least + extra + SOLVER_TOLERANCE_S), 0))
        seconds = np.where(np.abs(nearest - least - extra) <= SOLVER_TOLERANCE_S, nearest, least + extra)
        for cut in _CUTS:
            late = ~self._network.earliest_s(seconds, period)[1]
            if not late.any():
                break
            seconds[:, late] = least + np.maximum(extra[:, late] - cut * period[late], 0.0)
        return seconds

    def _beside(self, seconds: Floats) -> tuple[_Choices, _Choices]:
        """The hull points below and above; a time that is near to the one below lies on it."""
        menus = self._menu[:, None]
        below = self._down_on_hull[menus, np.maximum(self._slowest_within(slice(None), seconds), 0)]
        above = self._next_on_hull[menus, below]
        low, high = self._seconds[menus, below], self._seconds[menus, above]
        return below, np.where(seconds - low <= _NEAR * (high - low), below, above)

    def _slowest_within(self, rows: slice, seconds: Floats) -> _Choices:
        menus = self._menu[rows, None]
        capped = np.minimum(seconds + RESOLUTION_S, 0.8 * self._stride) + menus * self._stride
        found: _Choices = np.searchsorted(self._ladder, capped.ravel(), side="right").reshape(capped.shape)
        return np.subtract(found, 1 + menus * self._width, out=found)

    def _times(self, choices: _Choices) -> Floats:
        return self._seconds[self._menu[:, None], choices]

    def _frame(self, firsts_s: Floats, period: Floats, shape: tuple[int, ...]) -> _Frame:
        """Within it nothing passes the period: last instructions end in time for the first ones of the next."""
        floors, ceilings = np.zeros(shape), np.full(shape, np.inf)
        floors[self._network.firsts] = firsts_s
        ceilings[self._network.lasts] = firsts_s + period - self._network.wrap_gaps_s
        return _Frame(floors, ceilings)

    def _alternate(
        self, choices: _Choices, caps: Sequence[_Choices], frame: _Frame, sparse: Mask, forward: bool = True
    ) -> _Choices:
        """One traversal for each of the caps (the slowest options that it may give), in turn forward and backward.

        sparse: columns that use points of the hull only, but in the last traversal: what is too short for the next one
            is left to others, where it may be enough.
        """
        choices = choices.copy()
        starts = self._forward(choices, choices, frame, frame.ceilings)
        ends = self._latest_ends_s(self._times(choices), frame)
        for number, cap in enumerate(caps, 1):
            these = sparse if number < len(caps) else None
            if forward:
                starts = self._forward(choices, cap, frame, ends, these)
            else:
                ends = self._backward(choices, cap, frame, starts, these)
            forward = not forward
        return choices

    def _forward(
        self, choices: _Choices, caps: _Choices, frame: _Frame, ends_s: Floats, sparse: Mask | None = None
    ) -> Floats:
        """Lengthens from the first level on, in place, under latest ends; returns the starts."""
        starts, reached = frame.floors.copy(), np.empty(choices.shape)
        for begin, end, rows, edges, others, gaps in self._network.forward:
            level = slice(begin, end)
            if len(rows):
                after = np.maximum.reduceat(reached[others] + gaps, edges, axis=0)
                starts[begin + rows] = np.maximum(starts[begin + rows], after)
            if caps is not choices:
                self._lengthen(choices, caps, level, ends_s[level] - starts[level], sparse)
            reached[level] = starts[level] + self._seconds[self._menu[level, None], choices[level]]
        return starts

    def _backward(
        self, choices: _Choices, caps: _Choices, frame: _Frame, starts_s: Floats, sparse: Mask | None = None
    ) -> Floats:
        """Lengthens from the last level on, in place, over earliest starts; returns the latest ends."""
        ends, begun = frame.ceilings.copy(), np.empty(choices.shape)
        for begin, end, rows, edges, others, gaps in self._network.backward:
            level = slice(begin, end)
            if len(rows):
                before = np.minimum.reduceat(begun[others] - gaps, edges, axis=0)
                ends[begin + rows] = np.minimum(ends[begin + rows], before)
            self._lengthen(choices, caps, level, ends[level] - starts_s[level], sparse)
            begun[level] = ends[level] - self._seconds[self._menu[level, None], choices[level]]
        return ends

    def _latest_ends_s(self, seconds: Floats, frame: _Frame) -> Floats:
        ends, begun = frame.ceilings.copy(), np.empty(seconds.shape)
        for begin, end, rows, edges, others, gaps in self._network.backward:
            level = slice(begin, end)
            if len(rows):
                before = np.minimum.reduceat(begun[others] - gaps, edges, axis=0)
                ends[begin + rows] = np.minimum(ends[begin + rows], before)
            begun[level] = ends[level] - seconds[level]
        return ends

    def _lengthen(self, choices: _Choices, caps: _Choices, level: slice, room_s: Floats, sparse: Mask | None) -> None:
        slowest = np.minimum(self._slowest_within(level, room_s), caps[level])
        if sparse is not None:
            on_hull = self._down_on_hull[self._menu[level, None], np.maximum(slowest, 0)]
            slowest = np.where(sparse, on_hull, slowest)
        np.maximum(choices[level], slowest, out=choices[level])

    def _vary(self, best: _Choices, periods: Floats, source: np.random.Generator, variants: int) -> _Choices:
        """Better choices, where variants of a window of levels are cheaper: each window takes its own best one."""
        network = self._network
        seconds = self._times(best)
        earliest = network.earliest_s(seconds, periods)[0]
        frame = self._frame(earliest[network.firsts], periods, best.shape)
        latest = self._latest_ends_s(seconds, frame) - seconds
        starts = earliest + source.random() * (latest - earliest)
        width = int(source.choice(_WINDOWS))
        window = (network.level + int(source.integers(width))) // width
        window -= window[0]
        frame = self._windowed(self._frame(starts[network.firsts], periods, best.shape), starts, window)
        frame = _Frame(np.repeat(frame.floors, variants, axis=1), np.repeat(frame.ceilings, variants, axis=1))
        choices = np.repeat(best, variants, axis=1)
        share = source.choice(_PUT_BACK, size=variants) * (window[-1] + 1) / len(choices)
        back = source.random((len(choices), variants)) < share
        back[:, 0] = False
        steps = np.tile(back * source.integers(1, 3, back.shape), len(periods))
        choices = np.maximum(choices - steps, 0)
        held = np.where(steps > 0, choices, self._slowest)
        sparse, forward = np.tile(source.random(variants) < 0.5, len(periods)), bool(source.integers(2))
        choices = self._alternate(choices, [held, self._slowest, self._slowest], frame, sparse, forward)
        return self._best(choices, len(periods), window)

    def _windowed(self, frame: _Frame, starts_s: Floats, window: Ints) -> _Frame:
        """The frame in which windows don't feel each other: what one hands to another is there when it was before."""
        sources, targets, gaps = self._network.edges
        across = window[sources] != window[targets]
        pinned = np.unique(targets[across])
        frame.floors[pinned] = np.maximum(frame.floors[pinned], starts_s[pinned])
        np.minimum.at(frame.ceilings, sources[across], starts_s[targets[across]] - gaps[across])
        return frame

    def _best(self, choices: _Choices, periods: int, window: Ints | None = None) -> _Choices:
        """The cheapest variant of each period in each window; the first of equals, so that what can't be bettered
        stays."""
        window = np.zeros(len(choices), dtype=np.intp) if window is None else window
        joules = self._joules[self._menu[:, None], choices]
        spent = np.add.reduceat(joules, np.flatnonzero(np.diff(window, prepend=-1)), axis=0)
        spent = spent.reshape(len(spent), periods, -1)
        column = spent.argmin(axis=2) + np.arange(periods) * spent.shape[2]
        return np.take_along_axis(choices, column[window], axis=1)

    def _price_caps(self) -> list[_Choices]:
        """Hull points up to which a second saves at least so many joules, for a few prices from high to low."""
        prices = np.sort([price for option in self._of for price in _prices(option)])
        marks = np.quantile(prices, np.linspace(1, 0, _PRICES + 1)[1:-1]) if len(prices) else []
        return [
            np.array([[option.hull[int(np.sum(_prices(option) >= mark))]] for option in self._of])[self._menu]
            for mark in marks
        ]


def _prices(option: Options) -> Floats:
    """Joules saved by a second on each piece of the hull, descending."""
    hull = list(option.hull)
    return -np.diff(np.array(option.effective_j)[hull]) / np.diff(np.array(option.total_s)[hull])
