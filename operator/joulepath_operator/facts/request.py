"""What the planner is asked and what it answers. Both travel to a process of its own and back, pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joulepath_crds import EnergyProfileSpec, FrontierPoint, Granularity, StagePlan, SwitchingLag
from joulepath_operator.facts.exchanges import Exchanges
from joulepath_operator.facts.refusals import Refusal

__all__ = [
    "Answer",
    "Delays",
    "PlanRefusal",
    "PlanRequest",
    "PlanResult",
    "Request",
    "SurveyRequest",
    "SurveyResult",
    "TransferEdge",
]

TransferEdge = tuple[int, int, str]
"""Stage that sends, stage that receives, kind."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds that no clock changes: between stages, before each instruction of a (stage, kind), after the last; and
    when messages leave and are awaited, which those rest upon."""

    transfers_s: Mapping[TransferEdge, float] = field(default_factory=dict)
    overheads_s: Mapping[tuple[int, str], float] = field(default_factory=dict)
    tails_s: Mapping[int, float] = field(default_factory=dict)
    exchanges: Exchanges = field(default_factory=Exchanges)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan. `orders` by place in the pipeline, as `Exchanges.written` has them; `inputs` tells one request from
    another."""

    inputs: str
    profile: EnergyProfileSpec
    orders: tuple[tuple[str, ...], ...]
    delays: Delays
    control_time_s: float
    max_slowdown: float
    granularity: Granularity
    lag: SwitchingLag | None
    supported_clocks_mhz: tuple[int, ...]
    reserve: float = 0.0
    """Beside what any plan has: of one that takes the place of a plan that was slower than allowed."""


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan and its figures; `control_time_s` and `plan_time_s` are what the running job should measure."""

    stages: tuple[StagePlan, ...]
    granularity: Granularity
    t_min_s: float
    iteration_time_s: float
    baseline_j: float
    energy_j: float
    lower_bound_j: float
    predicted_savings: float
    bound_savings: float
    frontier: tuple[FrontierPoint, ...]
    control_time_s: float
    plan_time_s: float


@dataclass(frozen=True, slots=True)
class SurveyRequest:
    """How well the frontier is known by what was measured so far, and what to measure next: up to `count` of the
    candidates. `newest_mhz` was measured last; `orders` and `inputs` as of a PlanRequest."""

    inputs: str
    profile: EnergyProfileSpec
    orders: tuple[tuple[str, ...], ...]
    delays: Delays
    supported_clocks_mhz: tuple[int, ...]
    newest_mhz: tuple[int, ...]
    candidates_mhz: tuple[int, ...]
    count: int


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """Half the 95% interval of the frontier's energy, as a fraction, and the clocks that tell most, best first."""

    uncertainty: float
    tells_most_mhz: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PlanRefusal:
    """Why there is no plan: a reason and a sentence with the remedy."""

    reason: Refusal
    message: str


Request = PlanRequest | SurveyRequest
Answer = PlanResult | SurveyResult | PlanRefusal
