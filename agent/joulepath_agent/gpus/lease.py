"""Leases: the only thing that keeps a clock locked, and everything that ends one."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["End", "silence_limit_s"]

_LEAST_SILENCE_S: Final = 2.0
_SILENT_ITERATIONS: Final = 3


class End(StrEnum):
    """Why a lease ended."""

    PROCESS_GONE = "ProcessGone"
    CONNECTION_CLOSED = "ConnectionClosed"
    MARKERS_STOPPED = "MarkersStopped"
    MARKERS_LOST = "MarkersLost"
    PLAN_OVER = "PlanOver"
    PLAN_CHANGED = "PlanChanged"
    ORDER_MISMATCH = "OrderMismatch"
    GUARD_TRIPPED = "GuardTripped"
    CLOCK_FAILED = "ClockFailed"
    FOLLOWER_FAILED = "FollowerFailed"
    AGENT_STOPPED = "AgentStopped"


def silence_limit_s(iteration_time_s: float) -> float:
    """How long a rank's markers may stop before its clock is released; ``iteration_time_s`` is 0 while unknown."""
    return max(_LEAST_SILENCE_S, _SILENT_ITERATIONS * iteration_time_s)
