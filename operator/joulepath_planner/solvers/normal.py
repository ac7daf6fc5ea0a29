"""The normal equations of the interior-point method: a narrow band with a dense border.

An edge's row has 1 at its target, 1 at the period if it is a wrap, and -1 at its source. Rows of one source are
coupled, since they share its duration. With the weights w of its edges, W their sum and r from `interior`, a source u
with targets t contributes (W - r W W) at (u, u), -w_t (1 - r W) at (u, t) and w_t [s = t] - r w_s w_t at (s, t).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy.linalg import lapack
from scipy.sparse import coo_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from joulepath_planner.arrays import Floats, Ints, Mask

__all__ = ["NormalEquations"]

_LIFT: Final = 1e-13
"""Relative: added to the diagonal against rounding."""


class NormalEquations:
    """Symmetric equations in the columns that move; the others stay 0."""

    def __init__(self, source: Ints, target: Ints, wrap: Mask, moves: Mask) -> None:
        period = len(moves) - 1
        self._edge = np.concatenate([np.arange(len(source)), np.flatnonzero(wrap)])
        ends = np.concatenate([target, np.full(int(wrap.sum()), period)])
        order = np.argsort(source[self._edge], kind="stable")
        self._edge, ends = self._edge[order], ends[order]
        self._source = source[self._edge]
        self._left, self._right = _pairs(self._source)
        rows = np.concatenate([np.arange(period + 1), self._source, ends[self._left]])
        columns = np.concatenate([np.arange(period + 1), ends, ends[self._right]])

        border = np.zeros(period + 1, dtype=bool)
        border[target[wrap]] = border[period] = True
        border &= moves
        band = moves & ~border
        self._border, self._band = np.flatnonzero(border), np.flatnonzero(band)
        position = np.empty(period + 1, dtype=np.intp)
        position[self._band], position[self._border] = np.arange(len(self._band)), np.arange(len(self._border))

        inner = band[rows] & band[columns]
        links = coo_array(
            (np.ones(2 * int(inner.sum()), dtype=np.int8), _both(position[rows[inner]], position[columns[inner]])),
            shape=(len(self._band), len(self._band)),
        )
        near = reverse_cuthill_mckee(links.tocsr(), symmetric_mode=True)
        self._band = self._band[near]
        position[self._band] = np.arange(len(self._band))
        one, other = position[rows], position[columns]
        distance = np.abs(one - other)
        self._width = int(distance[inner].max(initial=0)) + 1
        self._inner = _Sum(inner, np.minimum(one, other) * self._width + distance)
        self._matrix = np.zeros((len(self._band), self._width))

        many = len(self._border)
        mixed = (band[rows] & border[columns]) | (border[rows] & band[columns])
        self._mixed = _Sum(mixed, np.where(band[rows], one * many + other, other * many + one))
        self._mixed_matrix = np.zeros((len(self._band), many))
        outer = border[rows] & border[columns]
        self._outer = _Sum(outer, np.maximum(one, other) * many + np.minimum(one, other))

    def factor(self, weight: Floats, total: Floats, rank1: Floats) -> None:
        """weight: of each edge; total and rank1: W and r of each column as a source."""
        of_edge = weight[self._edge]
        same = self._edge[self._left] == self._edge[self._right]
        left, right = of_edge[self._left], of_edge[self._right]
        values = np.concatenate(
            [
                total - rank1 * total**2,
                -of_edge * (1 - rank1 * total)[self._source],
                np.where(same, left, 0.0) - rank1[self._source[self._left]] * left * right,
            ]
        )
        self._inner.into(self._matrix, values)
        self._matrix[:, 0] *= 1 + _LIFT
        self._factor, failed = lapack.dpbtrf(self._matrix.T, lower=1, overwrite_ab=1)
        if failed:
            raise ArithmeticError("the normal equations are singular to working accuracy.")
        if len(self._border):
            self._mixed.into(self._mixed_matrix, values)
            outer = np.zeros((len(self._border),) * 2)
            self._outer.into(outer, values)
            self._reach = self._solve_band(self._mixed_matrix)
            self._schur = outer + np.tril(outer, -1).T - self._mixed_matrix.T @ self._reach

    def solve(self, right: Floats) -> Floats:
        solution = np.zeros_like(right)
        inner = self._solve_band(right[self._band])
        if len(self._border):
            outer = np.linalg.solve(self._schur, right[self._border] - self._mixed_matrix.T @ inner)
            solution[self._border] = outer
            inner = inner - self._reach @ outer
        solution[self._band] = inner
        return solution

    def _solve_band(self, right: Floats) -> Floats:
        return lapack.dpbtrs(self._factor, right, lower=1)[0] if len(self._band) else right


class _Sum:
    """Adds those of many values that are meant for one matrix into their places there."""

    def __init__(self, chosen: Mask, place: Ints) -> None:
        self._chosen = np.flatnonzero(chosen)
        self._places, self._which = np.unique(place[self._chosen], return_inverse=True)

    def into(self, matrix: Floats, values: Floats) -> None:
        matrix.fill(0.0)
        matrix.reshape(-1)[self._places] = np.bincount(self._which, values[self._chosen], minlength=len(self._places))


def _both(one: Ints, other: Ints) -> tuple[Ints, Ints]:
    return np.concatenate([one, other]), np.concatenate([other, one])


def _pairs(group: Ints) -> tuple[Ints, Ints]:
    """All pairs (i, j), i <= j, of places with the same group; equal groups stand together."""
    left, right = [np.arange(len(group))], [np.arange(len(group))]
    for offset in range(1, len(group)):
        here = np.flatnonzero(group[:-offset] == group[offset:])
        if not len(here):
            break
        left.append(here)
        right.append(here + offset)
    return np.concatenate(left), np.concatenate(right)
