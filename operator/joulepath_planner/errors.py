"""What the planner raises; each message is a sentence that says what is wrong, and where it can, what to do.

PlannerError
├── ArgumentError    (ValueError)     an argument that is out of range, or doesn't go with another one
├── ProfileError     (ValueError)     a profile that nothing can be planned on
├── ScheduleError    (ValueError)     a schedule that no pipeline can execute
├── ObjectiveError   (ValueError)     something asked for that no plan can give
├── PlanningError    (RuntimeError)   no plan exists for what was asked
└── SolverError      (RuntimeError)   the solver failed, which says nothing of whether there is a plan
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "ObjectiveError",
    "PlannerError",
    "PlanningError",
    "ProfileError",
    "ScheduleError",
    "SolverError",
]


class PlannerError(Exception):
    """Whatever the planner refuses to do."""


class ArgumentError(PlannerError, ValueError):
    """An argument that is out of range, or doesn't go with another one."""


class ProfileError(PlannerError, ValueError):
    """A profile that cannot be planned on; the message names stage, kind and clock."""


class ScheduleError(PlannerError, ValueError):
    """A schedule that no pipeline can execute; the message names rank and instruction."""


class ObjectiveError(PlannerError, ValueError):
    """Something that no plan can give; the message says what can be had."""


class PlanningError(PlannerError, RuntimeError):
    """No plan exists for what was asked, such as a deadline under the least iteration time."""


class SolverError(PlannerError, RuntimeError):
    """The solver failed; whether there is a plan isn't known."""
