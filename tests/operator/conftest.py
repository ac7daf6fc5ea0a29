"""A simulated job on a simulated cluster: what nodes would report, from the planner's referee on published figures.

Only tests of the operator use it, so that the whole story can be played without a cluster. GPUs, times and energies
follow GPT-3 175B on A100 (`tests/planner/data`); noise is left out, so that numbers can be compared.
"""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import pytest

from joulepath_crds import (
    MOST_BLOCKS,
    Arm,
    BlockReport,
    Coordinates,
    EnergyPlanSpec,
    EnergyPlanStatus,
    EnergyPolicySpec,
    GpuReport,
    InstructionMeasurement,
    InstructionTime,
    JobPlanSpec,
    JobReport,
    Purpose,
    RankReport,
    RankState,
    SwitchingLag,
    WaitMeasurement,
    arm_of,
    held_clock_mhz,
)
from joulepath_operator.facts.absence import Absence, Way
from joulepath_operator.facts.admission import Admission
from joulepath_operator.facts.observation import (
    Decision,
    NodeAgent,
    NodeJob,
    Notice,
    Observation,
    Pod,
    StoredPlan,
    StoredProfile,
    TrainingJob,
)
from joulepath_operator.facts.request import Answer, PlanRequest, Request
from joulepath_operator.planning.child import answer
from joulepath_operator.story.decide import decide
from joulepath_planner import LagTable, Pipeline, Simulation, simulate
from tests.operator.bare_api import api, server
from tests.planner.pipelines import BLOCKING_POWER_W, gpt3

__all__ = ["api", "server"]


DEFAULT_MHZ = 1410
TRANSFER_S = 0.002
OVERHEAD_S = 0.0005
TAIL_S = 0.03
MICROBATCHES = 8
"""As many as stages: the fewest that have a steady state."""
LAG = SwitchingLag(up_median_s=0.008, up_p95_s=0.010, down_median_s=0.008, down_p95_s=0.010, samples=50)


@lru_cache
def truth() -> Pipeline:
    """How the simulated GPUs behave."""
    edges = [edge for stage in range(7) for edge in ((stage, stage + 1, "F"), (stage + 1, stage, "B"))]
    return gpt3(
        MICROBATCHES,
        transfer_s=dict.fromkeys(edges, TRANSFER_S),
        overhead_s={(stage, kind): OVERHEAD_S for stage in range(8) for kind in "FB"},
        tail_s=dict.fromkeys(range(8), TAIL_S),
    )


@lru_cache
def replay(clocks: tuple[tuple[int | None, ...], ...] | None, pause_s: float = 0.0) -> Simulation:
    """An iteration at these clocks, where each switch pauses its GPU; below what is known of a stage it is as fast as
    at the lowest known clock."""
    if clocks is None:
        return simulate(truth())
    points = truth().profile.points
    lowest = [max(points[stage, kind][-1].clock_mhz for kind in "FB") for stage in range(len(clocks))]
    return simulate(
        truth(),
        [[clock and max(clock, least) for clock in row] for row, least in zip(clocks, lowest, strict=True)],
        replace(LagTable.constant(0.0), pause_s=pause_s),
    )


@lru_cache
def computed(request: bytes) -> Answer:
    """The planner's answer, also to those who ask the same in another test."""
    return answer(pickle.loads(request))


@lru_cache
def timeline(rank: int) -> tuple[InstructionTime, ...]:
    """A rank's iteration at default clocks; its clock starts when its own iteration does."""
    offset = 0.1 * rank
    return tuple(
        InstructionTime(
            instruction=str(event.instruction),
            stage=rank,
            begin_s=event.start_s - offset,
            end_s=event.start_s + event.duration_s - offset,
        )
        for event in replay(None).ranks[rank]
    )


class World:
    """One job of eight ranks on two nodes, its EnergyPlan, and a clock that counts iterations."""

    size = 8

    def __init__(self, spec: EnergyPlanSpec | None = None, *, slow: float = 1.0) -> None:
        self.spec = spec or EnergyPlanSpec.from_api({"job": {"name": "gpt3"}})
        self.generation = 1
        self.policy = EnergyPolicySpec()
        self.labels: dict[str, str] = {}
        """Of the namespace."""
        self.job: TrainingJob | None = TrainingJob("uid-one-0000", "gpt3", "plan", None)
        self.status = EnergyPlanStatus()
        self.plans: dict[str, StoredPlan] = {}
        self.profiles: dict[str, StoredProfile] = {}
        self.attempt = 0
        self.iteration = 10
        self.later_s = 0
        """Seconds that passed without an iteration."""
        self.ranks = self.size
        self.slow = slow
        """Iterations last so many times as long as the model says."""
        self.excess = 0.0
        """What a plan without a reserve costs beyond its word; a reserve takes off as much."""
        self.jitter = 1e-4
        self.pause_s = 0.0
        """For which a switch of clock holds up its GPU."""
        self.notices: list[Notice] = []
        self.reserves: dict[str, float] = {}
        """Of each plan, by its hash."""
        self.lag: SwitchingLag | None = LAG
        self.driver = "580.65.06"
        self.power_cap_w: float | None = 400.0
        self.refusal: dict[int, str] = {}
        self.reasons: dict[int, str] = {}
        self.unstaged: set[int] = set()
        self.pods: tuple[Absence | None, ...] = ()
        """One for each pod: why it has no trainer."""
        self.denied = ""
        self.way = Way.VOLUMES
        self.agents: tuple[NodeAgent, ...] = ()
        self.admission = Admission("team")
        self.plans_computed = 0
        self.writes: list[JobPlanSpec] = []
        self._version = 0
        self._staged: dict[str, int] = {}

    def copy(self) -> World:
        """Another one that goes on from here."""
        other = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, dict | set | list):
                setattr(other, name, copy.copy(value))
        return other

    @staticmethod
    def answer(request: Request) -> Answer:
        """The planner's answer, computed once for all who ask the same."""
        return computed(pickle.dumps(request))

    @property
    def plan(self) -> JobPlanSpec | None:
        """The JobPlan, of which there is at most one."""
        assert len(self.plans) <= 1
        return next((stored.spec for stored in self.plans.values()), None)

    def simulated(self, clocks: tuple[tuple[int | None, ...], ...] | None) -> Simulation:
        """An iteration."""
        return replay(clocks, self.pause_s)

    def place(self, rank: int) -> int:
        """Of a rank in its pipeline."""
        return rank

    def condition(self, kind: str) -> Any:
        return next(one for one in self.status.conditions if one.type == kind)

    def restart_job(self, uid: str = "uid-two-0000") -> None:
        self.job = TrainingJob(uid, "gpt3", "plan", None)
        self.iteration, self.attempt = 0, 0
        self._staged = {}

    def run(self, iterations: int, every: int = 4) -> None:
        """The job trains on; the operator looks after every so many iterations."""
        for _ in range(0, iterations, every):
            self.iteration += every
            self.settle()

    def settle_later(self) -> Decision:
        """The operator looks at once, and again when it said that it would."""
        decision = self.settle()
        self.later_s += math.ceil(decision.requeue_after_s or 0)
        return self.settle()

    def settle(self) -> Decision:
        """Decides and carries out until nothing changes, as the reconcile loop does."""
        for _ in range(12):
            decision = self.decide()
            while (asked := decision.ask_planner) is not None:
                self._carry_out(decision)
                self.plans_computed += isinstance(asked, PlanRequest)
                decision = self.decide(asked, self.answer(asked))
            if not self._carry_out(decision):
                return decision
        raise AssertionError(f"it never settles: {self.status.phase} {self.status.message}")

    def decide(self, asked: Request | None = None, planned: Answer | None = None) -> Decision:
        seen = replace(self.observe(), asked=asked, planned=planned)
        decision = decide(seen)
        assert decide(seen) == decision
        return decision

    def observe(self) -> Observation:
        return Observation(
            namespace="team",
            name="plan",
            generation=self.generation,
            spec=self.spec,
            status=self.status,
            now=f"{datetime(2026, 1, 1) + timedelta(seconds=self.iteration + self.later_s):%Y-%m-%dT%H:%M:%SZ}",
            job=self.job,
            nodes=self.nodes() if self.job else (),
            plans=tuple(self.plans.values()),
            profiles=tuple(self.profiles.values()),
            policy=self.policy,
            namespace_labels=self.labels,
            way=self.way,
            pods=tuple(Pod(f"gpt3-worker-{one}", f"node-{one}", None, lack) for one, lack in enumerate(self.pods)),
            denied=self.denied,
            agents=self.agents,
            admission=self.admission,
        )

    def nodes(self) -> tuple[NodeJob, ...]:
        """What two nodes of four GPUs report."""
        assert self.job is not None
        if (plan := self.plan) is not None:
            self._staged.setdefault(plan.hash, self.iteration)
        nodes = []
        for node in range(2):
            ranks = [rank for rank in range(node * 4, node * 4 + 4) if rank < self.ranks]
            report = JobReport(
                job_uid=self.job.uid,
                namespace="team",
                job="gpt3",
                attempt=self.attempt,
                world_size=self.size,
                ranks=tuple(self._rank(rank) for rank in ranks),
            )
            nodes.append(NodeJob(f"node-{node}", report, tuple(self._gpu(rank) for rank in ranks)))
        return tuple(nodes)

    def _carry_out(self, decision: Decision) -> bool:
        before = (self.status, dict(self.plans), dict(self.profiles))
        self.status = decision.status
        if decision.notice is not None:
            self.notices.append(decision.notice)
        if (profile := decision.write_profile) is not None:
            self.profiles[profile.name] = replace(profile, version=self._next())
        for name in decision.delete_plans:
            del self.plans[name]
        if (plan := decision.write_plan) is not None:
            old = self.plans.get(plan.name)
            assert plan.version == (old.version if old else None), "a conflict: it was decided from an old version"
            self.writes.append(plan.spec)
            self.reserves.setdefault(plan.spec.hash, max((one.reserve for one in self.status.withdrawn), default=0.0))
            self.plans[plan.name] = replace(plan, version=self._next())
        return (self.status, self.plans, self.profiles) != before

    def _next(self) -> str:
        self._version += 1
        return str(self._version)

    def _gpu(self, rank: int) -> GpuReport:
        clocks = tuple(range(DEFAULT_MHZ, 200, -15))
        return GpuReport(
            uuid=f"GPU-{rank}",
            model="Virtual A100",
            driver=self.driver,
            power_cap_w=self.power_cap_w,
            default_clock_mhz=DEFAULT_MHZ,
            supported_clocks_mhz=clocks,
            lag=self.lag,
        )

    def _rank(self, rank: int) -> RankReport:
        plan = self.plan
        usable = plan is not None and plan.attempt == self.attempt and not self.policy.paused
        arm = arm_of(plan, self.iteration)[0] if plan is not None and usable else Arm.DEFAULT
        period = self.simulated(None).iteration_time_s * self.slow
        refusal = self.refusal.get(rank)
        staged = usable and not refusal and rank not in self.unstaged
        return RankReport(
            rank=rank,
            pod=f"gpt3-worker-{rank // 4}",
            pod_uid=f"pod-{rank // 4}",
            gpu_uuid=f"GPU-{rank}",
            coordinates=Coordinates(pipeline=rank),
            stages=(rank,),
            stage_count=8,
            schedule="1F1B",
            microbatches=MICROBATCHES,
            order=tuple(str(one) for one in truth().schedule.orders[rank]),
            iteration=self.iteration,
            iteration_time_s=period,
            state=RankState.REFUSED if refusal else RankState.OBSERVING,
            reason=refusal or self.reasons.get(rank, ""),
            staged_hash=plan.hash if plan is not None and staged else None,
            staged_at_iteration=self._staged[plan.hash] if plan is not None and staged else None,
            applied_hash=plan.hash if plan is not None and arm is not Arm.DEFAULT and not refusal else None,
            control_time_s=period,
            tail_s=TAIL_S,
            timeline=timeline(rank),
            instructions=tuple(self._measurements(rank)),
            waits=tuple(
                WaitMeasurement(clock_mhz=clock, power_w=BLOCKING_POWER_W, power_standard_error_w=0.1)
                for clock in self._swept()
            ),
            blocks=tuple(self._blocks(rank)),
        )

    def _swept(self) -> set[int]:
        """Clocks measured by now; 0 for default clocks."""
        clocks = {0}
        if (plan := self.plan) is not None and plan.sweep is not None and plan.activate_at is not None:
            done = max(0, (self.iteration - plan.activate_at) // plan.sweep.iterations_per_block)
            clocks |= set(plan.sweep.clocks_mhz[:done])
        if plan is not None and plan.sweep is not None and plan.sweep.earlier is not None:
            clocks |= set(plan.sweep.earlier.clocks_mhz)
        return clocks

    def _measurements(self, rank: int) -> list[InstructionMeasurement]:
        found = []
        for clock in sorted(self._swept()):
            for kind in "FB":
                seconds, joules = truth().profile.at(rank, kind, clock or DEFAULT_MHZ)
                found.append(
                    InstructionMeasurement(
                        stage=rank,
                        kind=kind,
                        clock_mhz=clock,
                        samples=36,
                        time_s=seconds,
                        time_standard_error_s=seconds * 1e-3,
                        power_w=joules / seconds,
                        power_standard_error_w=0.5,
                    )
                )
        return found

    def _blocks(self, rank: int) -> list[BlockReport]:
        plan = self.plan
        if plan is not None and plan.sweep is not None and plan.activate_at is not None:
            return self._sweep_blocks(plan, rank)
        if plan is None or plan.purpose is not Purpose.ENFORCE or plan.activate_at is None or plan.blocks is None:
            return []
        length = plan.blocks.iterations
        done = max(0, (self.iteration - plan.activate_at) // length)
        clocks = tuple(tuple(clock or None for clock in stage.clocks_mhz) for stage in plan.stages)
        blocks = []
        for block in range(done):
            arm, number = arm_of(plan, plan.activate_at + block * length)
            if number < 0:
                continue
            measured, place = self.simulated(clocks if arm is Arm.PLAN else None), self.place(rank)
            late = max(0.0, self.excess - self.reserves.get(plan.hash, 0.0)) if arm is Arm.PLAN else 0.0
            blocks.append(
                BlockReport(
                    hash=plan.hash,
                    block=block,
                    arm=arm,
                    iterations=length - 2,
                    iteration_time_s=measured.iteration_time_s * (1 + late + self.jitter * (block % 3)),
                    energy_per_iteration_j=measured.energy[place].total_j * (1 + 1e-3 * (block % 5)),
                )
            )
        return blocks[-MOST_BLOCKS:]

    def _sweep_blocks(self, plan: JobPlanSpec, rank: int) -> list[BlockReport]:
        """Those of which two clocks take turns, and those that hold one beside them."""
        sweep, length = plan.sweep, plan.sweep.iterations_per_block if plan.sweep else 0
        if sweep is None or plan.activate_at is None or not sweep.to_and_fro_mhz:
            return []
        blocks = []
        for block in range(min(len(sweep.clocks_mhz), max(0, (self.iteration - plan.activate_at) // length))):
            two = sweep.clocks_mhz[block], sweep.to_and_fro_mhz[block]
            rows = tuple(tuple(two[at % 2] for at in range(len(row))) for row in truth().schedule.orders)
            measured = replay(rows) if held_clock_mhz(sweep, block) else self.simulated(rows)
            blocks.append(
                BlockReport(
                    hash=plan.hash,
                    block=block,
                    arm=Arm.SWEEP,
                    iterations=length - 1,
                    iteration_time_s=measured.iteration_time_s * (1 + self.jitter * (block % 3)),
                    energy_per_iteration_j=measured.energy[self.place(rank)].total_j,
                    switched=two[0] != two[1],
                )
            )
        return blocks


@pytest.fixture(scope="session")
def new_world() -> Callable[..., World]:
    """Makes a simulated job."""
    return World


@pytest.fixture(scope="session")
def once_active(new_world: Callable[..., World]) -> World:
    """A job with a plan in force, to be copied."""
    world = new_world()
    world.settle()
    world.run(236)
    assert world.status.phase == "Active"
    return world


@pytest.fixture
def active(once_active: World) -> World:
    """A job with a plan in force."""
    return once_active.copy()
