"""What every way to solve the linear program is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Thread
from typing import Final, Protocol

import highspy
import numpy as np

from joulepath_planner.arrays import Floats, Ints
from joulepath_planner.errors import PlanningError, SolverError

__all__ = ["SOLVER_TOLERANCE_S", "Program", "Solution", "Solver"]

SOLVER_TOLERANCE_S: Final = 1e-6
"""How exact the solver's times are."""


_DUAL_TOLERANCE: Final = 1e-7
"""HiGHS's dual_feasibility_tolerance: by how much a reduced cost may have the wrong sign."""
_ABSOLUTE_GAP: Final = 1e-6
"""HiGHS's mip_abs_gap."""
_BRANCHING: Final = {
    "mip_detect_symmetry": False,
    "mip_allow_restart": False,
    "mip_heuristic_effort": 0.0,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_root_reduced_cost": False,
}
"""For many small programs: what HiGHS tries at the root takes ten times as long as the nodes that it spares."""


@dataclass(frozen=True, slots=True)
class Solution:
    """energy_j: blocking energy until the period's end included; extra_s: seconds bought by each group, in total;
    slope_w: by how much energy_j grows per second of iteration time, at a breakpoint between the slopes beside it."""

    period_s: float
    energy_j: float
    extra_s: tuple[float, ...]
    slope_w: float


class Program(Protocol):
    """One model, solved again and again for other iteration times."""

    def solve(self, at_most_s: float, at_least_s: float = 0.0, after_s: float | None = None) -> Solution:
        """Least energy with the iteration time in [at_least_s, at_most_s].

        after_s: an `at_most_s` that was solved, to start from. Without it a method may start from whatever it solved
        last, and where several solutions are the best, the one that is found depends on that.

        Raises:
            PlanningError: There is none.
            SolverError: The solver failed to find one.
        """


class Solver(highspy.Highs):  # type: ignore[misc]
    """HiGHS, on one thread. Silent: starting its callbacks, unused here, prints a banner to standard output.

    HiGHS keeps a pool of threads for each thread that calls it, as large as the first solve there asked for, and
    refuses any later one that asks for another size. Callers may solve programs of their own, before and after; so each
    solve has a thread to itself, and leaves theirs alone.
    """

    def __init__(self, *, presolve: bool) -> None:
        super().__init__()
        self._presolve = "choose" if presolve else "off"
        self.setOptionValue("threads", 1)
        self.setOptionValue("presolve", self._presolve)

    def enableCallbacks(self) -> None:  # noqa: N802 (the library's name)
        self.silent()

    def optimum(self, period: int, at_most_s: float, at_least_s: float) -> tuple[Floats, float, float]:
        """Columns, objective, and reduced cost of the column `period`, which is held between these bounds.

        Raises:
            PlanningError: There is no optimum, as nothing is feasible.
            SolverError: HiGHS failed to say.
        """
        self.changeColBounds(period, at_least_s, at_most_s)
        status = self._status()
        if status != highspy.HighsModelStatus.kOptimal:  # the last basis may be to blame, or presolve
            self.clearSolver()
            self.setOptionValue("presolve", "off")
            status = self._status()
            self.setOptionValue("presolve", self._presolve)
        if status == highspy.HighsModelStatus.kInfeasible:
            raise PlanningError(
                f"no plan has an iteration time of at most {at_most_s:.6f} s; ask for a longer deadline."
            )
        if status != highspy.HighsModelStatus.kOptimal:
            raise SolverError(
                f"HiGHS found neither an optimum for an iteration time of at most {at_most_s:.6f} s nor that there is "
                f"none (its status: {status.name[1:]}); try a deadline a little longer, and report this with the input."
            )
        found = self.getSolution()
        return np.array(found.col_value), self.getInfo().objective_function_value, found.col_dual[period]

    def within(self, columns: Ints, upper: Floats) -> tuple[Floats, float] | None:
        """Values of all columns and objective with these columns at most so large; None if HiGHS finds no optimum."""
        self.changeColsBounds(len(columns), columns.astype(np.int32), np.zeros(len(columns)), upper)
        if self._status() != highspy.HighsModelStatus.kOptimal:
            return None
        return np.array(self.getSolution().col_value), self.getInfo().objective_function_value

    def branched(self, nodes: int, gap: float) -> tuple[float, int]:
        """(what no integral solution goes below, -inf where HiGHS doesn't say; the simplex iterations that this took)
        after so many nodes of branch and bound.

        It is less what HiGHS may lose within its tolerances: nodes within `gap` (relative) of the best solution, which
        it may cut off, and reduced costs of the wrong sign.
        """
        for name, value in {**_BRANCHING, "mip_max_nodes": nodes, "mip_rel_gap": gap}.items():
            self.setOptionValue(name, value)
        self._status()
        info, model = self.getInfo(), self.getLp()
        bound = info.mip_dual_bound if np.isfinite(info.mip_dual_bound) else -np.inf
        if info.primal_solution_status == int(highspy.SolutionStatus.kSolutionStatusFeasible):
            best = info.objective_function_value
            bound = min(bound, best - gap * abs(best) - _ABSOLUTE_GAP)
        ranges = np.array(model.col_upper_) - np.array(model.col_lower_)
        return bound - _DUAL_TOLERANCE * float(ranges.sum()), info.simplex_iteration_count

    def _status(self) -> highspy.HighsModelStatus:
        solving = Thread(target=self.run)
        solving.start()
        solving.join()
        status: highspy.HighsModelStatus = self.getModelStatus()
        return status
