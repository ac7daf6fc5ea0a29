"""What a look of the operator takes of a large job, by ranks and microbatches; writes benchmarks/results/looks.json.

    .venv/bin/python benchmarks/looks.py [--sizes 64x12,8192x512]

CPU seconds, of reports that are made in memory. A look puts together what the nodes report and decides. In steady state
a plan is in force, its pairs are sparse, and only the iteration has changed since the look before. Beside that stand
the looks that come once: a survey and a plan that are asked for, the way of what they are made from to the planner's
process, and how long delays are learnt there. Replicas share their instructions here, so that they fit in memory.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeVar

from joulepath_crds import (
    Arm,
    BlockReport,
    Coordinates,
    EnergyPlanSpec,
    EnergyPlanStatus,
    FrontierPoint,
    GpuReport,
    Granularity,
    InstructionMeasurement,
    InstructionTime,
    JobReport,
    RankReport,
    StagePlan,
    SwitchingLag,
    WaitMeasurement,
    arm_of,
)
from joulepath_operator.facts.observation import Decision, NodeJob, Observation, StoredPlan, TrainingJob
from joulepath_operator.facts.request import PlanRequest, PlanResult, SurveyRequest, SurveyResult
from joulepath_operator.figures.joining import KeptBlocks
from joulepath_operator.planning.child import learnt
from joulepath_operator.story.decide import decide
from joulepath_planner import Pipeline, simulate
from joulepath_planner.referee.replay import Event

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.planner.pipelines import scaled  # noqa: E402

SIZES: Final = ((64, 12), (512, 64), (8192, 12), (8192, 512))
STAGES: Final = {64: 8, 512: 16, 8192: 64}
GPUS_A_NODE: Final = 8
TOP_MHZ: Final = 1400
CLOCKS_MHZ: Final = tuple(range(TOP_MHZ, 800, -50))
"""All that the GPUs have: a dozen, as a sweep measures at most."""
BLOCKS: Final = 256
LOOKS: Final = 5
RESULTS: Final = ROOT / "benchmarks" / "results" / "looks.json"
UID: Final = "0a1b2c3d-0000"
T = TypeVar("T")


def stage_report(pipeline: Pipeline, stage: int, ran: Sequence[Event]) -> RankReport:
    """What the rank of a stage reports, once everything is measured."""
    instructions = tuple(
        InstructionMeasurement(
            stage=stage,
            kind=kind,
            clock_mhz=clock,
            samples=36,
            time_s=seconds,
            time_standard_error_s=seconds * 1e-3,
            power_w=150 + 250 * ((clock or TOP_MHZ) / TOP_MHZ) ** 2,
            power_standard_error_w=0.5,
        )
        for clock in (0, *CLOCKS_MHZ[1:])
        for kind in "FB"
        for seconds in (pipeline.profile.at(stage, kind, TOP_MHZ)[0] * (0.2 + 0.8 * TOP_MHZ / (clock or TOP_MHZ)),)
    )
    return RankReport(
        rank=stage,
        pod="p",
        pod_uid="p",
        gpu_uuid=f"GPU-{stage}",
        coordinates=Coordinates(pipeline=stage),
        stages=(stage,),
        stage_count=pipeline.schedule.stages,
        schedule="1F1B",
        microbatches=sum(one.kind == "F" for one in pipeline.schedule.orders[stage]),
        order=tuple(str(one.instruction) for one in ran),
        timeline=tuple(
            InstructionTime(
                instruction=str(one.instruction), stage=stage, begin_s=one.start_s, end_s=one.start_s + one.duration_s
            )
            for one in ran
        ),
        instructions=instructions,
        waits=tuple(
            WaitMeasurement(clock_mhz=one, power_w=80.0, power_standard_error_w=0.1) for one in (0, *CLOCKS_MHZ[1:])
        ),
    )


class Job:
    """A job of so many ranks, at its best."""

    def __init__(self, ranks: int, microbatches: int) -> None:
        self.stages = STAGES[ranks]
        self.replicas, self.kept = ranks // self.stages, KeptBlocks()
        pipeline = scaled([1.0] * (self.stages - 1) + [1.1], microbatches)
        simulated = simulate(pipeline)
        period_s = simulated.iteration_time_s
        self.ranks = [
            one.model_copy(
                update={
                    "rank": data * self.stages + stage,
                    "gpu_uuid": f"GPU-{data}-{stage}",
                    "coordinates": Coordinates(data=data, pipeline=stage),
                    "data_parallel": self.replicas,
                    "control_time_s": period_s,
                    "iteration_time_s": period_s,
                }
            )
            for stage, ran in enumerate(simulated.ranks)
            for one in (stage_report(pipeline, stage, ran),)
            for data in range(self.replicas)
        ]
        lag = SwitchingLag(up_median_s=0.01, up_p95_s=0.01, down_median_s=0.01, down_p95_s=0.01, samples=9)
        gpu = GpuReport(
            uuid="GPU",
            model="Virtual A100",
            default_clock_mhz=TOP_MHZ,
            supported_clocks_mhz=CLOCKS_MHZ,
            lag=lag,
        )
        self.gpus = {one.rank: gpu.model_copy(update={"uuid": one.gpu_uuid}) for one in self.ranks}
        self.seen = Observation(
            namespace="team",
            name="plan",
            generation=1,
            spec=EnergyPlanSpec.from_api({"job": {"name": "job"}}),
            status=EnergyPlanStatus(),
            now="2026-01-01T00:00:00Z",
            job=TrainingJob(UID, "job", "plan", None),
        )
        self.report({"iteration": 10})

    def report(self, update: dict[str, Any]) -> None:
        """All nodes report this of their ranks."""
        self.ranks = [one.model_copy(update=update) for one in self.ranks]
        nodes = []
        for at in range(0, len(self.ranks), GPUS_A_NODE):
            ranks = tuple(self.ranks[at : at + GPUS_A_NODE])
            report = JobReport(job_uid=UID, namespace="team", job="job", world_size=len(self.ranks), ranks=ranks)
            nodes.append(NodeJob(f"node-{at}", report, tuple(self.gpus[one.rank] for one in ranks)))
        self.seen = replace(self.seen, nodes=tuple(nodes))

    def look(self, **changes: Any) -> Decision:
        """What is decided is written."""
        decision = decide(replace(self.seen, **changes), self.kept)
        self.seen = replace(self.seen, status=decision.status)
        if (plan := decision.write_plan) is not None:
            self.seen = replace(self.seen, plans=(replace(plan, version="1"),))
        if (profile := decision.write_profile) is not None:
            self.seen = replace(self.seen, profiles=(replace(profile, version="1"),))
        return decision

    @property
    def plan(self) -> StoredPlan:
        (plan,) = self.seen.plans
        return plan

    def play(self) -> None:
        """The plan that is there is staged, begins and is done."""
        spec = self.plan.spec
        self.report({"staged_hash": spec.hash})
        self.look()
        begin = self.plan.spec.activate_at
        assert begin is not None
        self.report({"iteration": begin + 10_000, "applied_hash": spec.hash})


def took_s(job: Callable[[], T]) -> tuple[float, T]:
    begin_s = time.process_time()
    found = job()
    return time.process_time() - begin_s, found


def blocks_of(job: Job) -> tuple[BlockReport, ...]:
    """As many as a rank keeps, of the plan that is in force."""
    spec = job.plan.spec
    assert spec.blocks is not None
    assert spec.activate_at is not None
    length, noise = spec.blocks.iterations, random.Random(1)
    arms = ((block, arm_of(spec, spec.activate_at + block * length)[0]) for block in range(BLOCKS))
    return tuple(
        BlockReport(
            hash=spec.hash,
            block=block,
            arm=arm,
            iterations=length - 2,
            iteration_time_s=noise.gauss(10, 0.001),
            energy_per_iteration_j=(90 if arm is Arm.PLAN else 100) * noise.gauss(1, 0.001),
        )
        for block, arm in arms
        if arm in (Arm.PLAN, Arm.CONTROL)
    )


def plan_of(job: Job, request: PlanRequest) -> PlanResult:
    """Any will do."""
    stages = tuple(
        StagePlan(stage=stage, order=order, clocks_mhz=(1200,) * len(order), durations_s=(0.1,) * len(order))
        for stage, order in enumerate(request.orders)
    )
    return PlanResult(
        stages=stages,
        granularity=Granularity.INSTRUCTION,
        t_min_s=1.0,
        iteration_time_s=1.0,
        baseline_j=100.0,
        energy_j=90.0,
        lower_bound_j=89.0,
        predicted_savings=0.1,
        bound_savings=0.11,
        frontier=(FrontierPoint(iteration_time_s=1.0, lower_bound_j=89.0),),
        control_time_s=request.control_time_s,
        plan_time_s=request.control_time_s,
    )


def measured(ranks: int, microbatches: int) -> dict[str, Any]:
    """CPU seconds, by what is looked at; bytes of a request."""
    job = Job(ranks, microbatches)
    job.look()
    job.play()
    found: dict[str, Any] = {}
    found["survey asked"], decision = took_s(job.look)
    survey = decision.ask_planner
    assert isinstance(survey, SurveyRequest)
    found["survey awaited"], _ = took_s(lambda: job.look(asked=survey))
    found["request packed"], packed = took_s(lambda: pickle.dumps(survey))
    found["request bytes"] = len(packed)
    found["learnt, elsewhere"], known = took_s(lambda: learnt(survey))
    answer = SurveyResult(0.001, (), known.delays)
    found["profile made, plan asked"], decision = took_s(lambda: job.look(asked=survey, planned=answer))
    plan = decision.ask_planner
    assert isinstance(plan, PlanRequest)
    found["plan awaited"], _ = took_s(lambda: job.look(asked=plan))
    found["plan sent"], _ = took_s(lambda: job.look(asked=plan, planned=plan_of(job, plan)))
    job.play()
    job.report({"blocks": blocks_of(job)})
    job.look()
    looks = []
    for number in range(LOOKS):
        job.report({"iteration": job.ranks[0].iteration + number})
        looks.append(took_s(job.look)[0])
    assert job.seen.status.phase == "Active", job.seen.status.message
    assert job.seen.status.measured is not None
    found["steady"] = median(looks)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="What a look of the operator takes of a large job.")
    parser.add_argument("--sizes", default=",".join(f"{ranks}x{microbatches}" for ranks, microbatches in SIZES))
    options = parser.parse_args()
    rows = {size: measured(*map(int, size.split("x"))) for size in options.sizes.split(",")}
    names = list(next(iter(rows.values())))
    print(f"{'ranks x microbatches':<26}" + "".join(f"{size:>12}" for size in rows))
    for name in names:
        unit = "" if name.endswith("bytes") else " s"
        print(f"{name + unit:<26}" + "".join(f"{row[name]:>12,.{3 if unit else 0}f}" for row in rows.values()))
    RESULTS.write_text(json.dumps({"unit": "CPU seconds", "jobs": rows}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
