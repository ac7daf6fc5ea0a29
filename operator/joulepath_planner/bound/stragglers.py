"""Data-parallel pipelines of differing speed: which iteration time for whom, and what that saves.

All replicas of a job wait for the slowest one, whose iteration takes T'. So each other one may be planned for
T_opt = min(T*_fixed, max(T_min, T')) at no cost in time (extrinsic bloat); before T*_fixed a longer iteration saves
more than its waits cost, as the waits until T' are there anyway. `plan(..., deadline_s=T', fixed=True)` is the plan.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from joulepath_planner.arguments import check_fields, checked
from joulepath_planner.bound.frontier import Frontier, FrontierPoint
from joulepath_planner.errors import ObjectiveError

__all__ = ["Job", "Replica", "Share", "beside_straggler", "share_out"]


@checked
def beside_straggler(frontier: Frontier, straggler_s: float) -> FrontierPoint:
    """T_opt = min(T*_fixed, max(T_min, T')) of a pipeline that waits for another, whose iteration takes T' seconds.

    The point's `energy_j` counts waits until T_opt; those until T' come on top.

    Raises:
        ObjectiveError: T' is no time above 0.
    """
    if not straggler_s > 0 or math.isinf(straggler_s):
        raise ObjectiveError(f"T' is {straggler_s:g} s; give the straggler's iteration time, above 0.")
    return frontier.at(min(frontier.t_star_fixed_s, max(frontier.t_min_s, straggler_s)))


@dataclass(frozen=True, slots=True)
class Replica:
    """One pipeline of a data-parallel job.

    factor: how many times longer than in the frontier everything lasts, at the same watts (a slow, throttled GPU).
    """

    frontier: Frontier
    factor: float = 1.0

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.factor < math.inf:
            raise ObjectiveError(f"a replica's factor is {self.factor:g}; it must be finite and above 0.")

    @property
    def t_min_s(self) -> float:
        return self.frontier.t_min_s * self.factor

    def t_opt_s(self, straggler_s: float) -> float:
        """The iteration time to plan for while the slowest replica takes `straggler_s`."""
        return beside_straggler(self.frontier, straggler_s / self.factor).iteration_time_s * self.factor

    def energy_j(self, planned_s: float, until_s: float) -> float:
        """Least joules of an iteration planned for `planned_s` that waits until `until_s`."""
        waits_w = self.frontier.points[-1].slope_w  # past T*_fixed all that grows are waits
        return self.frontier.at(planned_s / self.factor).energy_j * self.factor + waits_w * (until_s - planned_s)

    def baseline_energy_j(self, until_s: float) -> float:
        """Joules at default clocks, waits until `until_s` included."""
        return self.frontier.baseline_energy_j * self.factor + self.frontier.default_wait_w * (until_s - self.t_min_s)


@dataclass(frozen=True, slots=True)
class Share:
    """What one replica does: it is planned for t_opt_s, and waits until the job's iteration ends."""

    t_min_s: float
    t_opt_s: float
    energy_j: float
    baseline_energy_j: float


@dataclass(frozen=True, slots=True)
class Job:
    """The whole job. Energies are the frontier's bounds, in joules of one iteration of all replicas.

    baseline_energy_j: all at default clocks, all waiting for the slowest (T' = the largest T_min).
    intrinsic_energy_j: each planned for its own T_min, as if it were alone; what `energy_j` is under this is extrinsic.
    """

    iteration_time_s: float
    energy_j: float
    intrinsic_energy_j: float
    baseline_energy_j: float
    shares: tuple[Share, ...]

    @property
    def savings(self) -> float:
        return 1 - self.energy_j / self.baseline_energy_j


@checked
def share_out(replicas: Sequence[Replica], slowdown: float = 0.0) -> Job:
    """Iteration times of least energy for the whole job, at most `slowdown` over the slowest replica's T_min.

    Raises:
        ObjectiveError: There is no replica, or the slowdown is under 0.
    """
    if not replicas:
        raise ObjectiveError("a job has at least one replica; none is given.")
    if not slowdown >= 0:
        raise ObjectiveError(f"the slowdown is {slowdown:g}; it is a fraction of T_min, 0 or more.")
    slowest_s = max(one.t_min_s for one in replicas)
    latest_s = slowest_s * (1 + slowdown)

    def energy_j(time_s: float) -> float:
        return sum(one.energy_j(one.t_opt_s(time_s), time_s) for one in replicas)

    # The sum is convex with the breakpoints of all: the least of it is where it first stops falling.
    breakpoints = {point.iteration_time_s * one.factor for one in replicas for point in one.frontier.points}
    times = sorted({slowest_s, latest_s, *(time for time in breakpoints if slowest_s < time < latest_s)})
    least = bisect_left(range(len(times) - 1), True, key=lambda at: energy_j(times[at]) <= energy_j(times[at + 1]))
    time_s = times[least]
    return Job(
        iteration_time_s=time_s,
        energy_j=energy_j(time_s),
        intrinsic_energy_j=sum(one.energy_j(one.t_min_s, slowest_s) for one in replicas),
        baseline_energy_j=sum(one.baseline_energy_j(slowest_s) for one in replicas),
        shares=tuple(
            Share(
                one.t_min_s,
                t_opt := one.t_opt_s(time_s),
                one.energy_j(t_opt, time_s),
                one.baseline_energy_j(slowest_s),
            )
            for one in replicas
        ),
    )
