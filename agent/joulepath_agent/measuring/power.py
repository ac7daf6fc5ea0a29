"""Watts told apart by regression: what each kind of instruction draws, and waiting. Pure.

Between two edges of the energy counter,

    joules = sum over kinds of P_kind * seconds in that kind + P_b * seconds of waiting (+ P_tail * seconds of tail)

Windows between edges mix forwards, backwards and waits differently, which is what tells them apart. Each window is
weighted by the uncertainty of its edges; that each draws about what all do is known before, loosely. The first
iteration after a switch of clocks isn't counted, nor is a window that reaches out of the counted iterations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from joulepath_agent.gpus.energy import Trace
from joulepath_agent.measuring.run import TimedIteration
from joulepath_agent.measuring.spans import Regressor

__all__ = ["TAIL", "WAIT", "EnergyWindows", "PowerFit", "energy_windows", "fit_power"]

WAIT: Final[Regressor] = (-1, "wait")
TAIL: Final[Regressor] = (-1, "tail")
_LEAST_SHARE: Final = 0.005
_TAIL_SHARE: Final = 0.02
_PRIOR_SHARE: Final = 1.0
"""What is known before: no kind draws much less or more than all do together. Where windows tell it, they outweigh it;
where they hardly do, on a host so busy that its edges come late, it keeps a power from falling to nothing."""


@dataclass(frozen=True, slots=True)
class EnergyWindows:
    """Windows between edges of the energy counter."""

    regressors: tuple[Regressor, ...]
    seconds: NDArray[np.float64]
    """Seconds of each regressor, one row a window."""
    joules: NDArray[np.float64]
    edge_s: NDArray[np.float64]
    """Uncertainty of the window's length, in seconds."""

    @property
    def cells(self) -> int:
        """Numbers that it keeps."""
        return self.seconds.size + self.joules.size + self.edge_s.size


@dataclass(frozen=True, slots=True)
class PowerFit:
    """Watts of each regressor that could be told, with their standard errors."""

    power_w: dict[Regressor, float]
    standard_error_w: dict[Regressor, float]


def energy_windows(
    iterations: Sequence[TimedIteration], trace: Trace, least_s: float, most_cells: int
) -> EnergyWindows | None:
    """The windows of the energy counter that lie within iterations that follow each other; None if there is none.

    Windows shorter than `least_s` are joined; None also where they are more than `most_cells` numbers.
    """
    told = [(i.begin_s, i.end_s, i.spans) for i in iterations if i.spans is not None]
    if not told or len(told) < len(iterations):
        return None
    begin_s, end_s = told[0][0], told[-1][1]
    picked = _spread(np.flatnonzero((trace.time_s >= begin_s) & (trace.time_s <= end_s)), trace.time_s, least_s)
    regressors = sorted({regressor for *_, spans in told for regressor in spans.steps.regressors})
    if len(picked) < 2 or len(picked) * (len(regressors) + 4) > most_cells:
        return None
    times = trace.time_s[picked]
    index = {regressor: at for at, regressor in enumerate(regressors)}
    columns = [np.array([index[one] for one in spans.steps.regressors])[spans.steps.column] for *_, spans in told]
    sides = np.concatenate([begin + spans.times_s for begin, _, spans in told])
    seconds = _overlaps(times, np.concatenate(columns), sides, len(regressors))
    tails = np.array([(begin + spans.last_end_s, end) for begin, end, spans in told])
    tail = _overlaps(times, np.zeros(len(tails), np.intp), tails, 1)[0]
    waits = np.maximum(0.0, np.diff(times) - sum(seconds) - tail)
    uncertain = trace.uncertainty_s[picked]
    return EnergyWindows(
        regressors=(*regressors, WAIT, TAIL),
        seconds=np.column_stack((*seconds, waits, tail)),
        joules=np.diff(trace.energy_j[picked]),
        edge_s=np.hypot(uncertain[1:], uncertain[:-1]),
    )


def fit_power(windows: Sequence[EnergyWindows]) -> PowerFit:
    """Weighted least squares over windows at one clock, with the mean power as what is known before.

    Of an instruction that hardly occurs no more is known than before: it draws about what all do. What would draw less
    than nothing is left out; a short tail counts as wait.
    """
    if not windows:
        return PowerFit({}, {})
    regressors = windows[0].regressors
    kept = [r for r in windows if r.regressors == regressors]
    seconds = np.vstack([r.seconds for r in kept])
    joules = np.concatenate([r.joules for r in kept])
    edge_s = np.concatenate([r.edge_s for r in kept])
    wait, tail = regressors.index(WAIT), regressors.index(TAIL)
    total = seconds.sum()
    if seconds[:, tail].sum() < _TAIL_SHARE * total:
        seconds[:, wait] += seconds[:, tail]
        seconds[:, tail] = 0.0
    used = np.flatnonzero(seconds.sum(axis=0) > _LEAST_SHARE * total)
    if len(joules) <= len(used):
        return PowerFit({}, {})
    mean_w = joules.sum() / total
    scale = 1.0 / np.maximum(mean_w * edge_s, 1e-3)
    a, b = seconds[:, used] * scale[:, None], joules * scale
    power, _, rank, _ = np.linalg.lstsq(a, b, rcond=1e-8)
    if rank < len(used):
        return PowerFit({}, {})
    variance = max(1e-9, float(((b - a @ power) ** 2).sum() / (len(b) - len(used))))
    precision = a.T @ a / variance
    prior = np.eye(len(used)) / (_PRIOR_SHARE * mean_w) ** 2
    power += np.linalg.solve(precision + prior, prior @ (mean_w - power))
    errors = np.sqrt(np.diag(np.linalg.inv(precision + prior)))
    told = {one: (float(mean_w), _PRIOR_SHARE * float(mean_w)) for one in regressors if one not in (WAIT, TAIL)}
    for at, watts, error in zip(used, power, errors, strict=True):
        told[regressors[at]] = float(watts), float(error)
    told = {one: (watts, error) for one, (watts, error) in told.items() if watts > 0}
    return PowerFit({name: p for name, (p, _) in told.items()}, {name: e for name, (_, e) in told.items()})


def _overlaps(
    times: NDArray[np.float64], column: NDArray[np.intp], sides: NDArray[np.float64], columns: int
) -> list[NDArray[np.float64]]:
    """Seconds that the disjoint intervals of each column have within each window between times.

    All intervals are sorted once, by column and begin; each column then sweeps over its own.
    """
    sorting = np.lexsort((sides[:, 1], sides[:, 0], column))
    bounds = np.searchsorted(column[sorting], np.arange(columns + 1))
    return [_overlap(times, sides[sorting[low:high]]) for low, high in pairwise(bounds.tolist())]


def _overlap(times: NDArray[np.float64], intervals: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum.accumulate(intervals.reshape(-1))
    lengths = np.diff(sides)
    lengths[1::2] = 0.0
    return np.diff(np.interp(times, sides, np.concatenate(([0.0], np.cumsum(lengths)))))


def _spread(indices: NDArray[np.intp], times: NDArray[np.float64], least_s: float) -> NDArray[np.intp]:
    """Drops indices so that those kept are at least so far apart in time."""
    kept: list[int] = []
    for index in indices.tolist():
        if not kept or times[index] - times[kept[-1]] >= least_s:
            kept.append(index)
    return np.array(kept, dtype=np.intp)
