"""What the planner is asked and what it answers. Both travel to a process of its own and back, pickled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from joulepath_crds import EnergyProfileSpec, FrontierPoint, Granularity, StagePlan, StretchedStage, SwitchingLag
from joulepath_operator.facts.exchanges import Exchanges
from joulepath_operator.facts.iteration import RankIteration
from joulepath_operator.facts.refusals import Refusal

__all__ = [
    "Answer",
    "Delays",
    "Factors",
    "FrontierRequest",
    "FrontierResult",
    "PlanRefusal",
    "PlanRequest",
    "PlanResult",
    "Request",
    "StretchRequest",
    "StretchResult",
    "SurveyRequest",
    "SurveyResult",
    "TransferEdge",
]

Factors = dict[int, dict[int, float]]
"""Of each replica that is held up, by stage, how many times as long as usual its work takes."""
TransferEdge = tuple[int, int, str]
"""Stage that sends, stage that receives, kind."""


@dataclass(frozen=True, slots=True)
class Delays:
    """Seconds that no clock changes: between stages, before each instruction of a (stage, kind), after the last; and
    when messages leave and are awaited, which those rest upon. odd: how many of the pipelines that were looked at do
    that otherwise. Of single instructions (`3:B11`): gaps_s, before it, in place of its kind's; extras_s, within it,
    beyond the others of its kind, and fixed_s, what those are of a (stage, kind) on average."""

    transfers_s: Mapping[TransferEdge, float] = field(default_factory=dict)
    overheads_s: Mapping[tuple[int, str], float] = field(default_factory=dict)
    tails_s: Mapping[int, float] = field(default_factory=dict)
    exchanges: Exchanges = field(default_factory=Exchanges)
    odd: int = 0
    gaps_s: Mapping[str, float] = field(default_factory=dict)
    extras_s: Mapping[str, float] = field(default_factory=dict)
    fixed_s: Mapping[tuple[int, str], float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What to plan; `inputs` tells one request from another. `iterations` are those of some pipelines, of which the
    planner's process learns `delays`; `orders` is what the ranks of the first of them run, and then in the words of
    `Exchanges.written`."""

    inputs: str
    profile: EnergyProfileSpec
    orders: tuple[tuple[str, ...], ...]
    control_time_s: float
    max_slowdown: float
    granularity: Granularity
    lag: SwitchingLag | None
    supported_clocks_mhz: tuple[int, ...]
    reserve: float = 0.0
    """Beside what any plan has: of one that takes the place of a plan that was slower than allowed."""
    iterations: tuple[tuple[RankIteration, ...], ...] = ()
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class FrontierRequest:
    """The frontier of what is planned, beside a plan that is there: what another slowdown would buy."""

    inputs: str
    plan: PlanRequest


@dataclass(frozen=True, slots=True)
class StretchRequest:
    """How far the others may be stretched while some replicas are held up: `slow` says by how much, `stages` is the
    plan that all play. `plan.control_time_s` is without them."""

    inputs: str
    plan: PlanRequest
    stages: tuple[StagePlan, ...]
    slow: Factors


@dataclass(frozen=True, slots=True)
class StretchResult:
    """What the others play, nothing where that isn't worth it; which of the slow ones need default clocks; what the
    held-up job should measure; and savings of the whole job, also without any of it."""

    stages: tuple[StretchedStage, ...]
    default_replicas: tuple[int, ...]
    control_time_s: float
    plan_time_s: float
    predicted_savings: float
    predicted_unstretched: float


@dataclass(frozen=True, slots=True)
class PlanResult:
    """A plan and its figures; `control_time_s` and `plan_time_s` are what the running job should measure. The frontier
    comes with it where there is no pipeline; else it is asked for by itself. remarks: what was left out, in words;
    delays: as learnt. switch: seconds for which one holds up its GPU, as planned with, and half their 95% interval,
    where that was tried."""

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
    remarks: tuple[str, ...] = ()
    delays: Delays = field(default_factory=Delays)
    switch_s: float | None = None
    switch_half_s: float | None = None


@dataclass(frozen=True, slots=True)
class FrontierResult:
    """The frontier: as many points as there was time for."""

    points: tuple[FrontierPoint, ...]


@dataclass(frozen=True, slots=True)
class SurveyRequest:
    """How well the frontier is known by what was measured so far, and what to measure next: up to `count` of the
    candidates. `newest_mhz` was measured last; all else as of a PlanRequest."""

    inputs: str
    profile: EnergyProfileSpec
    orders: tuple[tuple[str, ...], ...]
    supported_clocks_mhz: tuple[int, ...]
    newest_mhz: tuple[int, ...]
    candidates_mhz: tuple[int, ...]
    count: int
    iterations: tuple[tuple[RankIteration, ...], ...] = ()
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class SurveyResult:
    """Half the 95% interval of the frontier's energy, as a fraction (infinite where nothing can be said of it), the
    clocks that tell most, best first, and the delays as learnt."""

    uncertainty: float
    tells_most_mhz: tuple[int, ...]
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class PlanRefusal:
    """Why there is no plan: a reason and a sentence with the remedy."""

    reason: Refusal
    message: str


Request = PlanRequest | SurveyRequest | FrontierRequest | StretchRequest
Answer = PlanResult | SurveyResult | FrontierResult | StretchResult | PlanRefusal
