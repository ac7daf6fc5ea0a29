"""The steps of the hulls within the interior-point method: y bought of each, v left of it, a and b what bounds cost.

Given how the prices of a node's dependencies change, its steps are known, each by itself. They are most of the
variables and little of the mathematics, so what counts is memory: a tile of them at a time stays in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from joulepath_planner.arrays import Floats, Ints, sums

__all__ = ["Tile", "tiles"]

_TILE: Final = 12_000
"""Steps of a tile: some twenty arrays of them fit into a core's cache."""


def tiles(owner: Ints, width: Floats, slope: Floats, nodes: int) -> Iterator[Tile]:
    """Tiles of whole nodes, in order; every node is in one."""
    first = np.searchsorted(owner, np.arange(nodes + 1))
    low = 0
    while low < nodes:
        high = max(low + 1, int(np.searchsorted(first, first[low] + _TILE, side="right")) - 1)
        part = slice(first[low], first[high])
        yield Tile(slice(low, high), owner[part] - low, width[part], slope[part])
        low = high


class Tile:
    """Methods take and give values of its nodes; `aim_*` must be asked before what follows from them."""

    def __init__(self, nodes: slice, owner: Ints, width: Floats, slope: Floats) -> None:
        self.nodes, self._owner, self._width, self._slope = nodes, owner, width, slope

    def begin(self, share: Floats, price: Floats, margin: float) -> None:
        """share: of each node's steps that is bought; margin: of a and b."""
        self._y = self._width * share[self._owner]
        self._v = self._width - self._y
        slope = self._slope + price[self._owner]
        self._a = np.maximum(slope, 0.0) + margin
        self._b = self._a - slope

    @property
    def bought(self) -> Floats:
        return self._sum(self._y)

    @property
    def gap(self) -> float:
        return float(self._y @ self._a + self._v @ self._b)

    def aim_at_edge(self, price: Floats) -> tuple[Floats, Floats]:
        """(how much each node yields per watt, how much it would buy if prices stayed)."""
        self._per_y, self._per_v = 1 / self._y, 1 / self._v
        self._a_per_y, self._b_per_v = self._a * self._per_y, self._b * self._per_v
        self._give = 1 / (self._a_per_y + self._b_per_v)
        self._wish = -self._slope - price[self._owner]
        return self._sum(self._give), self._sum(self._give * self._wish)

    def edge(self, change: Floats) -> tuple[float, float, Floats]:
        """(greatest relative loss of y and v, of a and b; the parts of the gap: constant, by one share, by both).

        At the edge a + da = -a dy / y and b + db = b dy / v.
        """
        dy = self._buy(change)
        to_y, to_v = dy * self._per_y, dy * self._per_v
        ady, bdy = self._a * dy, self._b * dy
        parts = np.array([self.gap, ady.sum() - bdy.sum(), ady @ to_y + bdy @ to_v])
        self._ca, self._cb = (ady + ady * to_y) * self._per_y, (bdy * to_v - bdy) * self._per_v
        return _greatest(-to_y, to_v), _greatest(1 + to_y, 1 - to_v), parts

    def aim_at_centre(self, centre: float) -> Floats:
        """How much each node would buy, with what the step to the edge left out."""
        self._ca += centre * self._per_y
        self._cb += centre * self._per_v
        self._wish += self._ca - self._cb
        return self._sum(self._give * self._wish)

    def centre(self, change: Floats) -> tuple[float, float]:
        """(greatest relative loss of y and v, of a and b)."""
        self._dy = self._buy(change)
        self._da = self._ca - self._a - self._a_per_y * self._dy
        self._db = self._cb - self._b + self._b_per_v * self._dy
        p = _greatest(-self._dy * self._per_y, self._dy * self._per_v)
        return p, _greatest(-self._da / self._a, -self._db / self._b)

    def move(self, primal: float, dual: float) -> None:
        self._y += primal * self._dy
        self._v = self._width - self._y
        self._a += dual * self._da
        self._b += dual * self._db

    def _buy(self, change: Floats) -> Floats:
        return self._give * (self._wish - change[self._owner])

    def _sum(self, steps: Floats) -> Floats:
        return sums(self._owner, steps, self.nodes.stop - self.nodes.start)


def _greatest(*losses: Floats) -> float:
    return max((float(loss.max(initial=0.0)) for loss in losses), default=0.0)
