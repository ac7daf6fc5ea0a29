"""What the planner may raise, whatever it is given."""

from __future__ import annotations

from collections.abc import Callable

from joulepath_planner import PlannerError

__all__ = ["check_refusal"]


def check_refusal(make: Callable[[], object]) -> None:
    """Nothing is raised but what the planner raises, in a sentence."""
    told = "."
    try:
        make()
    except PlannerError as refused:
        told = str(refused)
    assert told.endswith(".")
