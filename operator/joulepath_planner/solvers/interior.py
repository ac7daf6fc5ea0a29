"""Large programs: a primal-dual interior-point method that knows what a pipeline looks like.

Mehrotra's predictor-corrector. Steps of the hulls and prices of the dependencies are eliminated by hand (they are
diagonal, but for one rank-1 term for each instruction), which leaves a symmetric system in the starts alone. A
schedule connects a start with few others that are near in time, so that in the order of reverse Cuthill-McKee the
system is a narrow band, about twice as wide as there are ranks, and its Cholesky factor costs little. What would
widen the band, the period and the first starts of ranks whose wraps count, is kept as a dense border.

Where the optimum is a face, an interior method ends in the middle of it, with many instructions between two clocks. A
tiny random tilt of the slopes makes it end in a corner; the bound is proven with the true slopes.

The least period leaves nothing inside: there the method solves for a period a trifle longer. Its prices prove a bound
for the period that was asked for all the same, and its starts are brought back into what that period allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from threadpoolctl import ThreadpoolController

from joulepath_planner.arrays import Floats, sums
from joulepath_planner.solvers.normal import NormalEquations
from joulepath_planner.solvers.relaxation import Relaxation
from joulepath_planner.solvers.steps import tiles

__all__ = ["InteriorPoint", "InteriorPointMethod", "NoInteriorError"]

_ACCURACY: Final = 1e-6
"""Relative: the complementarity gap to stop at."""
_FEASIBILITY: Final = 1e-6
"""Relative to the period: how exactly dependencies are kept before what is left is cut off."""
_INSIDE: Final = (1e-6, 1e-4)
"""Relative: how much longer than the least period an iteration has to be to leave something inside; tried in turn."""
_NOTHING: Final = 1e-9
"""Relative: less is rounding, and would keep critical instructions from being known as such."""
_MOST_ITERATIONS: Final = 100
_BOUNDARY: Final = 0.995
_TILT: Final = 1e-4


class NoInteriorError(ArithmeticError):
    """The method did not converge; another one has to solve this program."""


@dataclass(frozen=True, slots=True)
class InteriorPoint:
    """extra_s: of each instruction, over its least time; flow_w: of each edge."""

    period_s: float
    extra_s: Floats
    flow_w: Floats


class InteriorPointMethod:
    """Solves one relaxation for many periods."""

    def __init__(self, relaxation: Relaxation) -> None:
        self._of = relaxation
        self._normal: dict[bool, NormalEquations] = {}
        self._threads = ThreadpoolController()

    def solve(self, at_most_s: float, *, free: bool) -> InteriorPoint:
        """The optimum with this period, or, if `free`, with at most this period.

        Raises:
            NoInteriorError: The method did not converge.
        """
        for inside in _INSIDE:
            try:
                return self._solve(at_most_s, self._of.least_period_s * (1 + inside), free)
            except (ArithmeticError, np.linalg.LinAlgError):
                continue
        raise NoInteriorError("the interior-point method did not converge.")

    def _solve(self, at_most_s: float, at_least_s: float, free: bool) -> InteriorPoint:
        search = _Search(self._of, max(at_most_s, at_least_s), free and at_most_s > at_least_s)
        if search.free not in self._normal:
            self._normal[search.free] = NormalEquations(search.source, search.target, search.wrap > 0, search.moves)
        # The blocks of a narrow band are too small to share: more threads would only wait for each other.
        with np.errstate(all="ignore"), self._threads.limit(limits=1, user_api="blas"):
            search.run(self._normal[search.free])
        return search.point(at_most_s)


class _Search:
    def __init__(self, of: Relaxation, period_s: float, free: bool) -> None:
        self.of, self.free, self.period_s, self.columns = of, free, period_s, of.size + 1
        self.source, self.target, self.gap, self.wrap = of.source, of.target, of.gap_s, of.wrap.astype(float)
        self.cost = np.zeros(self.columns)
        self.moves = np.ones(self.columns, dtype=bool)
        self.moves[0], self.moves[-1] = False, free
        if free:  # the period is at most so long: an edge from its column to the first start
            self.source, self.target = np.append(of.source, of.size), np.append(of.target, 0)
            self.gap, self.wrap = np.append(of.gap_s, -period_s), np.append(self.wrap, 0.0)
            self.cost[-1] = of.idle_w
        slope = of.slope_w * (1 + _TILT * np.random.default_rng(0).random(len(of.slope_w)))
        self.pairs = len(self.source) + 2 * len(slope)
        self.tiles = list(tiles(of.owner, of.width_s, slope, of.size))
        self._begin(-float(slope.mean()) / 2)

    def _begin(self, typical_w: float) -> None:
        """Halfway between earliest and latest, with half of the room there used."""
        earliest, latest = self.of.window(self.period_s, self.period_s)
        known = np.append(np.isfinite(self.of.after_s) & np.isfinite(self.of.before_s), True)
        self.x = np.where(known, (earliest + latest) / 2, np.maximum(earliest, 0.0))
        width = sums(self.of.owner, self.of.width_s, self.of.size)
        share = np.minimum(0.5, (latest - earliest)[:-1] / 2 / np.maximum(width, 1e-300))
        self.f = np.full(len(self.source), typical_w)
        price = self._of_source(self.f)
        for tile in self.tiles:
            tile.begin(np.maximum(share, 1e-4)[tile.nodes], price[tile.nodes], 2 * typical_w)
        self.z = np.maximum(self._slack(), 0.3 * float(self.of.width_s.mean()))

    def _bought(self) -> Floats:
        return np.concatenate([*(tile.bought for tile in self.tiles), [0.0]])

    def _of_source(self, edges: Floats) -> Floats:
        return sums(self.source, edges, self.columns)

    def _apart(self, x: Floats) -> Floats:
        apart: Floats = x[self.target] + self.wrap * x[-1] - x[self.source]
        return apart

    def _balance(self, f: Floats) -> Floats:
        """The transpose of `_apart`."""
        balance = sums(self.target, f, self.columns) - self._of_source(f)
        balance[-1] += self.wrap @ f
        return balance

    def _slack(self) -> Floats:
        return self._apart(self.x) - (self.of.least_s + self._bought())[self.source] - self.gap

    def run(self, normal: NormalEquations) -> None:
        joules = abs(self.of.constant_j + self.of.idle_w * self.period_s)
        for _ in range(_MOST_ITERATIONS):
            gap = float(self.z @ self.f) + sum(tile.gap for tile in self.tiles)
            late = self.z - self._slack()
            if gap <= _ACCURACY * joules and np.abs(late).max() <= _FEASIBILITY * self.period_s:
                return
            if not np.isfinite(gap):
                break
            self._step(normal, gap, late)
        raise NoInteriorError("the interior-point method did not converge.")

    def _step(self, normal: NormalEquations, gap: float, late: Floats) -> None:
        z, f, parts = self.z, self.f, self.tiles
        price = self._of_source(f)
        unpaid = self.cost - self._balance(f)
        aims = [tile.aim_at_edge(price[tile.nodes]) for tile in parts]
        rank1 = np.concatenate([*(aim[0] for aim in aims), [0.0]])
        weight = f / z
        total = self._of_source(weight)
        rank1 /= 1 + rank1 * total
        normal.factor(weight, total, rank1)

        def weigh(edges: Floats) -> Floats:
            weighted: Floats = weight * edges
            weighted -= weight * (rank1 * self._of_source(weighted))[self.source]
            return weighted

        def towards(bought: list[Floats], slack: Floats) -> tuple[Floats, Floats, Floats, Floats]:
            """(dx, df, by how much each node's price changes, dz) that make each z this much."""
            needed = late + np.concatenate([*bought, [0.0]])[self.source] + slack - z
            dx = normal.solve(self._balance(weigh(needed)) - unpaid)
            df = weigh(needed - self._apart(dx))
            return dx, df, self._of_source(df), slack - z - df / weight

        # All of the way to the edge, to see how much can be had.
        _, df, change, dz = towards([aim[1] for aim in aims], np.zeros_like(z))
        edges = [tile.edge(change[tile.nodes]) for tile in parts]
        p = _share((-dz / z).max(), *(edge[0] for edge in edges))
        d = _share((-df / f).max(), *(edge[1] for edge in edges))
        constant, single, double = np.sum([edge[2] for edge in edges], axis=0)
        left = (1 - d) * constant + (p * (1 - d) - d) * single - p * d * double + (z + p * dz) @ (f + d * df)
        centre = gap / self.pairs * (float(left) / gap) ** 3
        # And towards the centre, with what the first step left out.
        bought = [tile.aim_at_centre(centre) for tile in parts]
        dx, df, change, dz = towards(bought, (centre - dz * df) / f)
        losses = [tile.centre(change[tile.nodes]) for tile in parts]
        p = _share((-dz / z).max() / _BOUNDARY, *(loss[0] / _BOUNDARY for loss in losses))
        d = _share((-df / f).max() / _BOUNDARY, *(loss[1] / _BOUNDARY for loss in losses))
        for tile in parts:
            tile.move(p, d)
        self.x, self.z, self.f = self.x + p * dx, z + p * dz, f + d * df

    def point(self, at_most_s: float) -> InteriorPoint:
        """For a period of at most so long, if that is the shorter one.

        The later of two ways to keep all dependencies with least durations keeps them too, and so does the earlier:
        starts may be cut off at the earliest and the latest ones, and durations where the next start is.
        """
        period = min(float(self.x[-1]), at_most_s)
        earliest, latest = self.of.window(period, period)
        x = np.clip(self.x, earliest, latest)
        edges = len(self.of.source)
        room = self._apart(x)[:edges] - self.gap[:edges]
        longest = np.full(self.columns, np.inf)
        np.minimum.at(longest, self.of.source, room)
        extra = np.minimum(self._bought(), longest - self.of.least_s) * (1 - _NOTHING)
        extra[extra < _NOTHING * period] = 0.0
        return InteriorPoint(period, extra[:-1], self.f[:edges])


def _share(*losses: float) -> float:
    """How much of a step, 1 at most, can be taken until a value that loses this share of itself would be negative."""
    return 1 / max(1.0, *losses)
