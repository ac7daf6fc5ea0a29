"""From the linear program's seconds to clocks, where every instruction has a clock of its own: for many at once.

Each instruction first takes the slowest clock that is no slower than its linear-program time. What slack this leaves
is handed on in *sweeps*: forward, from the earliest starts on, each instruction takes the slowest clock with which it
ends before its latest end, so that what one can't use is left to those after it; backward the same from the end. The
first sweep lets instructions go to the next clock above their linear-program time only, the last ones to any; between,
to those that save most joules per second. No sweep ever passes the period.

Sweeps spend slack where they come first, not where it saves most. So several assignments are swept together, some
rounded at random, and the best one is then varied: a few instructions, drawn at random, are put back by a clock or
two, the others get the slack, and what costs less is kept. All is drawn from one fixed seed: the same problem, the same
plan.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from joulepath_planner.graph import Graph
from joulepath_planner.options import Floats, Options
from joulepath_planner.program import SOLVER_TOLERANCE_S
from joulepath_planner.timing import RESOLUTION_S, Network

Choices = NDArray[np.intp]

_SEED = 20241104
_PRICES = 3
"""Between the first sweep and the last, the slack is offered to the steps that save most, so many times."""
_PUT_BACK = (1, 3, 10)
"""How many instructions a variation puts back, on average."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How many assignments are swept together for each period, and how many times the best one is varied."""

    variants: int
    variations: int
    budget_s: float = 0.0
    """Go on varying for so many seconds; the result then depends on how fast the machine is."""


def effort(size: int, periods: int = 1) -> Effort:
    """What pays: much for small pipelines, where each instruction counts, little for large ones."""
    variants = int(np.clip(20_000 / (size * periods), 2, 16))
    return Effort(variants, int(np.clip(250_000 / (size * periods * variants), 3, 40)))


class Sweeper:
    """The clocks of every instruction for one graph and one table of options."""

    def __init__(self, graph: Graph, options: Sequence[Options], network: Network | None = None) -> None:
        self._network = network or Network(graph)
        kinds: dict[int, int] = {}
        kind = [kinds.setdefault(id(option), len(kinds)) for option in options]
        self._of = [options[kind.index(number)] for number in range(len(kinds))]
        self._kind = np.array(kind, dtype=np.intp)[self._network.nodes]
        self._width = max(len(option.clocks_mhz) for option in self._of)
        self._seconds = np.full((len(self._of), self._width), np.inf)
        self._joules = np.full((len(self._of), self._width), np.inf)
        for number, option in enumerate(self._of):
            self._seconds[number, : len(option.total_s)] = option.total_s
            self._joules[number, : len(option.total_s)] = option.effective_j
        self._slowest = np.array([[len(option.total_s) - 1] for option in self._of])[self._kind]
        self._up_on_hull = np.zeros((len(self._of), self._width), dtype=np.intp)
        for number, option in enumerate(self._of):
            hull, here = np.array(option.hull), np.arange(len(option.total_s))
            self._up_on_hull[number, here] = hull[np.minimum(np.searchsorted(hull, here), len(hull) - 1)]
        # All kinds' times in one ascending row, each kind's shifted by its number times the stride.
        self._stride = 2 * max(option.total_s[-1] for option in self._of) + 1.0
        shifts = self._stride * np.arange(len(self._of))[:, None]
        self._ladder = (np.minimum(self._seconds, 0.9 * self._stride) + shifts).ravel()

    def choose(
        self, periods_s: Sequence[float], extra_s: Sequence[Sequence[float]], how: Effort
    ) -> list[list[int] | None]:
        """For each period the option of each node, from the seconds over the least that the linear program gave it;
        None where not even the fastest clocks keep the period."""
        source = np.random.default_rng(_SEED)
        extra = np.repeat(np.array(extra_s).T[self._network.nodes], how.variants, axis=1)
        period = np.repeat(np.array(periods_s), how.variants)
        choices, goals = self._start(extra, period, source, how.variants)
        kept = self._keeps(choices, period)
        deadlines, starts = self._frame(choices[:, kept], period[kept])
        swept = self._alternate(
            choices[:, kept], [goals[:, kept], *self._price_caps(), self._slowest], starts, deadlines
        )
        choices[:, kept] = swept
        best = self._best(choices, len(periods_s))
        until = time.monotonic() + how.budget_s
        round_ = 0
        while kept.any() and (round_ < how.variations or time.monotonic() < until):
            best = self._vary(best, np.array(periods_s), source, how.variants, round_)
            round_ += 1
        found = np.empty_like(best)
        found[self._network.nodes] = best
        feasible = self._keeps(best, np.array(periods_s))
        return [column.tolist() if fits else None for column, fits in zip(found.T, feasible, strict=True)]

    def _start(
        self, extra: Floats, period: Floats, source: np.random.Generator, variants: int
    ) -> tuple[Choices, Choices]:
        """Rounded choices that keep their period where any do, and the next ones up, as far as the first sweep goes.
        All variants but the first are drawn: some instructions start a clock higher, some may go no further."""
        choices, goals = self._round(extra, SOLVER_TOLERANCE_S)
        drawn = (choices < goals) & (np.arange(len(period)) % variants > 0)
        choices = np.maximum(choices - (drawn & (source.random(choices.shape) < 0.1)), 0)
        goals = np.where(drawn & (source.random(goals.shape) < 0.5), choices, goals)
        # A time this close to a clock's time means that clock; where that is too long, the next faster one.
        if (late := ~self._keeps(choices, period)).any():
            choices[:, late] = self._round(extra[:, late], -SOLVER_TOLERANCE_S)[0]
            late[late] = ~self._keeps(choices[:, late], period[late])
            choices[:, late] = 0
        return choices, goals

    def _round(self, extra: Floats, tolerance_s: float) -> tuple[Choices, Choices]:
        """The slowest options within these seconds, and the hull points at or above them."""
        kinds, seconds = self._kind[:, None], self._seconds[self._kind, 0][:, None] + extra
        choices = np.maximum(self._slowest_within(slice(None), seconds + tolerance_s), 0)
        above = np.minimum(self._slowest_within(slice(None), seconds - SOLVER_TOLERANCE_S) + 1, self._slowest)
        return choices, np.maximum(choices, self._up_on_hull[kinds, above])

    def _slowest_within(self, rows: slice, seconds: Floats) -> Choices:
        kinds = self._kind[rows, None]
        capped = np.minimum(seconds + RESOLUTION_S, 0.8 * self._stride) + kinds * self._stride
        found: Choices = np.searchsorted(self._ladder, capped.ravel(), side="right").reshape(capped.shape)
        return np.subtract(found, 1 + kinds * self._width, out=found)

    def _times(self, choices: Choices) -> Floats:
        return self._seconds[self._kind[:, None], choices]

    def _keeps(self, choices: Choices, period: Floats) -> NDArray[np.bool_]:
        return self._network.earliest_s(self._times(choices), period)[1]

    def _frame(self, choices: Choices, period: Floats) -> tuple[Floats, Floats]:
        """(latest ends of the ranks' last instructions, earliest starts): within it nothing passes the period."""
        starts = self._network.earliest_s(self._times(choices), period)[0]
        return starts[self._network.firsts] + period - self._network.wrap_gaps_s, starts

    def _alternate(
        self, choices: Choices, caps: Sequence[Choices], starts: Floats, deadlines: Floats, forward: bool = True
    ) -> Choices:
        """One sweep for each of the caps (the slowest options that it may give), in turn forward and backward."""
        choices = choices.copy()
        ends = self._backward(choices, choices, starts, deadlines) if forward else starts
        for cap in caps:
            if forward:
                starts = self._forward(choices, cap, starts[self._network.firsts], ends)
            else:
                ends = self._backward(choices, cap, starts, deadlines)
            forward = not forward
        return choices

    def _forward(self, choices: Choices, caps: Choices, floors: Floats, ends_s: Floats) -> Floats:
        """Lengthens from the first level on, in place, under latest ends; returns the starts."""
        starts, reached = np.zeros(choices.shape), np.empty(choices.shape)
        starts[self._network.firsts] = floors
        for begin, end, rows, edges, others, gaps in self._network.forward:
            level = slice(begin, end)
            if len(rows):
                after = np.maximum.reduceat(reached[others] + gaps, edges, axis=0)
                starts[begin + rows] = np.maximum(starts[begin + rows], after)
            self._lengthen(choices, caps, level, ends_s[level] - starts[level])
            reached[level] = starts[level] + self._seconds[self._kind[level, None], choices[level]]
        return starts

    def _backward(self, choices: Choices, caps: Choices, starts: Floats, deadlines: Floats) -> Floats:
        """Lengthens from the last level on, in place, over earliest starts; returns the latest ends."""
        ends, begun = np.full(choices.shape, np.inf), np.empty(choices.shape)
        ends[self._network.lasts] = deadlines
        for begin, end, rows, edges, others, gaps in self._network.backward:
            level = slice(begin, end)
            if len(rows):
                before = np.minimum.reduceat(begun[others] - gaps, edges, axis=0)
                ends[begin + rows] = np.minimum(ends[begin + rows], before)
            if caps is not choices:
                self._lengthen(choices, caps, level, ends[level] - starts[level])
            begun[level] = ends[level] - self._seconds[self._kind[level, None], choices[level]]
        return ends

    def _lengthen(self, choices: Choices, caps: Choices, level: slice, room_s: Floats) -> None:
        slowest = np.minimum(self._slowest_within(level, room_s), caps[level])
        np.maximum(choices[level], slowest, out=choices[level])

    def _vary(self, best: Choices, periods: Floats, source: np.random.Generator, variants: int, number: int) -> Choices:
        choices, period = np.repeat(best, variants, axis=1), np.repeat(periods, variants)
        share = source.choice(_PUT_BACK, size=len(period)) / len(choices)
        back = source.random(choices.shape) < share
        back[:, ::variants] = False
        choices = np.maximum(choices - back * source.integers(1, 3, choices.shape), 0)
        deadlines, starts = self._frame(choices, period)
        held = np.where(back, choices, self._slowest)
        return self._best(
            self._alternate(choices, [held, self._slowest], starts, deadlines, forward=number % 2 == 0), len(periods)
        )

    def _best(self, choices: Choices, periods: int) -> Choices:
        """The cheapest variant of each period; the first of equals, so that what can't be bettered stays."""
        joules = self._joules[self._kind[:, None], choices].sum(axis=0).reshape(periods, -1)
        variants = joules.shape[1]
        return choices[:, np.arange(periods) * variants + joules.argmin(axis=1)]

    def _price_caps(self) -> list[Choices]:
        """Hull points up to which a second saves at least so many joules, for a few prices from high to low."""
        prices = np.sort([price for option in self._of for price in _prices(option)])
        marks = np.quantile(prices, np.linspace(1, 0, _PRICES + 1)[1:-1]) if len(prices) else []
        return [
            np.array([[option.hull[int(np.sum(_prices(option) >= mark))]] for option in self._of])[self._kind]
            for mark in marks
        ]


def _prices(option: Options) -> Floats:
    """Joules saved by a second on each piece of the hull, descending."""
    hull = list(option.hull)
    return -np.diff(np.array(option.effective_j)[hull]) / np.diff(np.array(option.total_s)[hull])
