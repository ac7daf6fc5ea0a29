"""A plan as values, as a rank is given it, and what it does with one. `joulepath_crds` has the same as API objects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["MARGIN", "TAIL_LAGS", "Blocks", "Plan", "Purpose", "RankState", "StagePlan", "Sweep"]

TAIL_LAGS: Final = 4
"""A tail of at most so many lags (p95, upward) stays at the next iteration's first clock: two more switches would cost
more than they save. The planner, which imports nobody, has the same number; a test holds both equal."""

MARGIN: Final = 0.005
"""How much slower than allowed, as a fraction, a plan still counts as no slower: non-inferiority can't be shown without
a margin. The planner has the same number; a test holds both equal."""


class Purpose(StrEnum):
    """What the plan is for."""

    SWEEP = "Sweep"
    ENFORCE = "Enforce"


class RankState(StrEnum):
    """What the agent does for a rank."""

    OBSERVING = "Observing"
    STAGED = "Staged"
    SWEEPING = "Sweeping"
    ENFORCING = "Enforcing"
    REFUSED = "Refused"


@dataclass(frozen=True, slots=True)
class Sweep:
    """Profiling: all ranks at one clock for a block, then the next clock; or to and fro between two of them."""

    clocks_mhz: tuple[int, ...]
    iterations_per_block: int
    to_and_fro_mhz: tuple[int, ...] = ()
    """Of each block, the clock that takes turns with its own; empty: none does."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """The measurement of savings, see `arms`."""

    iterations: int
    pairs: int
    every: int | None = None


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The plan of one stage: labels of its instructions in order, and of each its clock and predicted seconds."""

    stage: int
    order: tuple[str, ...]
    clocks_mhz: tuple[int, ...]
    durations_s: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one rank is to run, from which iteration on. Every field is that of a JobPlan."""

    hash: str
    purpose: Purpose
    default_clock_mhz: int
    attempt: int = 0
    activate_at: int | None = None
    sparse_from: int | None = None
    sweep: Sweep | None = None
    blocks: Blocks | None = None
    stages: tuple[StagePlan, ...] = ()
    """Those of the rank."""
    control_iteration_time_s: float = 0.0
    plan_iteration_time_s: float = 0.0
    allowed_slowdown: float | None = None

    @property
    def asked_slowdown(self) -> float:
        """The slowdown that it asks for. An older operator's plan tells it by its times; one without them asks none."""
        if self.allowed_slowdown is not None:
            return self.allowed_slowdown
        if self.control_iteration_time_s <= 0:
            return 0.0
        return max(0.0, self.plan_iteration_time_s / self.control_iteration_time_s - 1)
