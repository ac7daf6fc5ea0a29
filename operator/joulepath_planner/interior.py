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

import numpy as np
from threadpoolctl import ThreadpoolController

from joulepath_planner.normal import NormalEquations
from joulepath_planner.options import Floats
from joulepath_planner.relaxation import Relaxation, sums

_ACCURACY = 1e-6
"""Relative: the complementarity gap to stop at."""
_FEASIBILITY = 1e-6
"""Relative to the period: how exactly dependencies are kept before what is left is cut off."""
_INSIDE = 1e-6
"""Relative: how much longer than the least period an iteration has to be to leave something inside."""
_MOST_ITERATIONS = 150
_BOUNDARY = 0.995
_TILT = 1e-4


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
        """The optimum with this period, or, if `free`, with at most this period; raises `NoInteriorError`."""
        of = self._of
        at_least_s = of.least_period_s * (1 + _INSIDE)
        search = _Search(of, max(at_most_s, at_least_s), free and at_most_s > at_least_s)
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
        self.slope = of.slope_w * (1 + _TILT * np.random.default_rng(0).random(len(of.slope_w)))
        self._begin()

    def _begin(self) -> None:
        """Halfway between earliest and latest, with half of the room there used."""
        earliest, latest = self.of.window(self.period_s, self.period_s)
        known = np.append(np.isfinite(self.of.after_s) & np.isfinite(self.of.before_s), True)
        self.x = np.where(known, (earliest + latest) / 2, np.maximum(earliest, 0.0))
        width = self.of.width_s
        half = np.maximum(self._of_owner(width) / 2, 1e-300)
        self.y = width / 2 * np.minimum(1.0, (latest - earliest) / 2 / half)[self.of.owner]
        self.y = np.maximum(self.y, 1e-4 * width)
        self.v = width - self.y
        typical_s, typical_w = width.mean(), -self.slope.mean() / 2
        self.z = np.maximum(self._slack(), 0.3 * typical_s)
        self.f = np.full(len(self.source), typical_w)
        price = self.slope + self._of_source(self.f)[self.of.owner]
        self.a = np.maximum(price, 0.0) + 2 * typical_w
        self.b = self.a - price

    def _of_owner(self, steps: Floats) -> Floats:
        return sums(self.of.owner, steps, self.columns)

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
        return self._apart(self.x) - (self.of.least_s + self._of_owner(self.y))[self.source] - self.gap

    def run(self, normal: NormalEquations) -> None:
        joules = abs(self.of.constant_j + self.of.idle_w * self.period_s)
        pairs = len(self.z) + 2 * len(self.y)
        for _ in range(_MOST_ITERATIONS):
            mu = float(self.z @ self.f + self.y @ self.a + self.v @ self.b) / pairs
            late = self.z - self._slack()
            if mu * pairs <= _ACCURACY * joules and np.abs(late).max() <= _FEASIBILITY * self.period_s:
                return
            if not np.isfinite(mu):
                break
            self._step(normal, mu, late)
        raise NoInteriorError("the interior-point method did not converge.")

    def _step(self, normal: NormalEquations, mu: float, late: Floats) -> None:
        owner, z, f, y, v, a, b = self.of.owner, self.z, self.f, self.y, self.v, self.a, self.b
        unpaid = self.cost - self._balance(f)
        uneven = a - b - self.slope - self._of_source(f)[owner]
        give = 1 / (a / y + b / v)
        weight = f / z
        total = self._of_source(weight)
        rank1 = self._of_owner(give)
        rank1 /= 1 + rank1 * total
        normal.factor(weight, total, rank1)

        def weigh(edges: Floats) -> Floats:
            weighted: Floats = weight * edges
            weighted -= weight * (rank1 * self._of_source(weighted))[self.source]
            return weighted

        def towards(rz: Floats, ra: Floats, rb: Floats) -> tuple[Floats, ...]:
            wish = uneven + ra / y - rb / v
            needed = late + self._of_owner(give * wish)[self.source] + rz / f
            dx = normal.solve(self._balance(weigh(needed)) - unpaid)
            df = weigh(needed - self._apart(dx))
            dy = give * (wish - self._of_source(df)[owner])
            return dx, df, dy, (rz - z * df) / f, (ra - a * dy) / y, (rb + b * dy) / v

        _, df, dy, dz, da, db = towards(-z * f, -y * a, -v * b)
        p = min(1.0, _steps(z, dz, y, dy, v, -dy))
        d = min(1.0, _steps(f, df, a, da, b, db))
        after = float((z + p * dz) @ (f + d * df) + (y + p * dy) @ (a + d * da) + (v - p * dy) @ (b + d * db))
        centre = mu * (after / (len(z) + 2 * len(y)) / mu) ** 3
        dx, df, dy, dz, da, db = towards(centre - z * f - dz * df, centre - y * a - dy * da, centre - v * b + dy * db)
        p = min(1.0, _BOUNDARY * _steps(z, dz, y, dy, v, -dy))
        d = min(1.0, _BOUNDARY * _steps(f, df, a, da, b, db))
        self.x, self.z, self.y = self.x + p * dx, z + p * dz, y + p * dy
        self.v = self.of.width_s - self.y
        self.f, self.a, self.b = f + d * df, a + d * da, b + d * db

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
        extra = np.minimum(self._of_owner(self.y), np.maximum(longest - self.of.least_s, 0.0))
        return InteriorPoint(period, extra[:-1], self.f[:edges])


def _steps(*pairs: Floats) -> float:
    """How many steps can be taken until a value would be negative."""
    fastest = max((-step / value).max() for value, step in zip(pairs[::2], pairs[1::2], strict=True))
    return float(1 / fastest) if fastest > 0 else np.inf
