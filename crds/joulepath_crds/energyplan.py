"""EnergyPlan: what a user asks for, and the story of what came of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import ConfigDict, Field

from joulepath_crds.contract import UID, Contract, Hash, Name, Text, list_by, rule
from joulepath_crds.topology import Topology
from joulepath_rules import JOB_NAMES

__all__ = [
    "ArmSummary",
    "Condition",
    "EnergyPlanSpec",
    "EnergyPlanStatus",
    "Estimate",
    "FrontierPoint",
    "Granularity",
    "JobReference",
    "MeasuredSavings",
    "Measurement",
    "Mode",
    "Phase",
    "PlanSummary",
    "Profiling",
    "Setback",
    "Straggler",
    "Stragglers",
    "WithdrawnPlan",
]


_KINDS: Final = [f"{kind.kind} of {kind.api_version}" for kind in JOB_NAMES]


class Mode(StrEnum):
    """What Joulepath may do."""

    ENFORCE = "Enforce"
    OBSERVE = "Observe"


class Granularity(StrEnum):
    """How often a plan may change the clock of a GPU."""

    AUTO = "auto"
    INSTRUCTION = "instruction"
    PHASE = "phase"
    KIND = "kind"
    RANK = "rank"


class Stragglers(StrEnum):
    """What pipelines do while another one of their job is slower."""

    STRETCH = "Stretch"
    IGNORE = "Ignore"


class Phase(StrEnum):
    """Where an EnergyPlan stands."""

    PENDING = "Pending"
    PROFILING = "Profiling"
    PLANNED = "Planned"
    ACTIVE = "Active"
    IDLE = "Idle"
    COMPLETED = "Completed"
    REFUSED = "Refused"


class JobReference(Contract):
    """The training job; it must carry the annotation joulepath.dev/energy-plan with this EnergyPlan's name."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    f"self.kind + ' of ' + self.apiVersion in {_KINDS}",
                    "'spec.job is a ' + self.kind + ' of ' + self.apiVersion + ', but only "
                    f"{', '.join(_KINDS)} are supported: set spec.job.kind and spec.job.apiVersion to one of these'",
                ),
                rule(
                    "self == oldSelf",
                    "'spec.job.name is \"' + self.name + '\", but this EnergyPlan was made for \"' + oldSelf.name + "
                    "'\" and spec.job cannot change: make a new EnergyPlan for the other job'",
                ),
            ]
        }
    )

    api_version: Annotated[str, Field(max_length=253)] = "kubeflow.org/v1"
    """API version of the job: that of its kind."""
    kind: Annotated[str, Field(max_length=63)] = "PyTorchJob"
    """Kind of the job: PyTorchJob (kubeflow.org/v1), TrainJob (trainer.kubeflow.org/v1alpha1), JobSet
    (jobset.x-k8s.io/v1alpha2) or Job (batch/v1). Of a job that another has made, such as the JobSet of a TrainJob, name
    the one that has made it."""
    name: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the job, in the EnergyPlan's namespace."""


class Profiling(Contract):
    """How the running job is profiled: rounds of a few clocks, a few iterations each. The first round has clocks from
    all over the range and blocks at default clocks between them; those of the next are where the frontier (the least
    energy for each iteration time) is known least. It ends once that is known to a percent."""

    clocks: Annotated[int, Field(ge=3, le=40)] = 12
    """How many clocks to measure at most, between the GPU's highest and the lowest that pays; iterationsPerClock + 1
    iterations of the job each. What switches of clock cost is tried beyond that, in eight times as many iterations."""
    iterations_per_clock: Annotated[int, Field(ge=1, le=100)] = 3
    """Iterations measured at each clock; the first iteration after a switch is not counted."""
    max_slowdown_percent: Annotated[float, Field(ge=1, le=100)] = 67.0
    """How much longer than at default clocks an iteration may last while it is profiled, in percent. Time grows no
    faster than the clock falls, so this bounds the clocks that are measured; what a plan may set is bounded with it."""
    max_energy_j: Annotated[float, Field(gt=0)] | None = None
    """Joules, of all GPUs of the job, that the iterations of profiling may take, counted as at default clocks: no
    further round begins that would take more. Absent: no such bound."""
    reuse: bool = True
    """Whether to start from the EnergyProfile of an earlier run of the same shape (schedule, stages, microbatches,
    tensor-parallel peers; any number of replicas) where there is one. It is checked at two clocks, used or refreshed by
    what they say, and refused where GPU model, power cap or driver differ: then all clocks are measured anew."""


class Measurement(Contract):
    """How savings are measured: blocks of iterations with the plan and, as control, at default clocks."""

    block_iterations: Annotated[int, Field(ge=3, le=1000)] = 6
    """Iterations of a block; the first and the last of each are not counted."""
    pairs: Annotated[int, Field(ge=4, le=1000)] = 32
    """Pairs of a plan block and a control block right after activation, in random order, at most: they end once the
    slowdown is known to half a percent and the savings to a point, but not before eight. From then on one pair of fifty
    is measured for as long as the job runs; its control block costs 1% of what is saved."""


class EnergyPlanSpec(Contract):
    """Which job to save energy for, how much slower it may get, and how to find out. Default clocks, here and in the
    status, are what the GPUs do by themselves, without Joulepath."""

    job: JobReference
    """The training job, in the same namespace. It must carry the annotation joulepath.dev/energy-plan with this
    EnergyPlan's name before its pods are made. It cannot change: make a new EnergyPlan for another job."""
    mode: Mode = Mode.ENFORCE
    """Enforce sets GPU clocks. Observe sets none, neither to profile nor to save: it times the job, tells what a plan
    would save if an EnergyProfile of an earlier run is there, and measures a saving of zero."""
    max_slowdown_percent: Annotated[
        float,
        Field(
            ge=0,
            le=50,
            json_schema_extra={
                "x-kubernetes-validations": [
                    rule(
                        "self >= 0.0 && self <= 50.0",
                        "must be between 0 (no slowdown) and 50: set how many percent longer than at default clocks an "
                        "iteration may last",
                    )
                ]
            },
        ),
    ] = 0.0
    """How much longer than at default clocks an iteration (one optimizer step) may last, in percent. With 0 only work
    is slowed down that no other waits for; higher values save more energy. A job without a pipeline (DDP, FSDP, ZeRO,
    one GPU) has no such work: with 0 it is profiled, and the status tells what which slowdown would save."""
    granularity: Granularity = Granularity.AUTO
    """How often the clock of a GPU may change: with every forward or backward of a microbatch (instruction), between
    warm-up, steady state and cool-down of the pipeline (phase), between forward and backward (kind), or never (rank).
    auto takes what is cheapest by the measured switching lag of the GPUs, and by what switches cost by themselves,
    which profiling tries in eight blocks more where that may decide; and kind at most without a pipeline."""
    stragglers: Stragglers = Stragglers.STRETCH
    """What the data-parallel pipelines of a job do while another one of them is slower, as its ranks tell or the job's
    annotation joulepath.dev/straggler announces: they all wait for that one. Stretch has them take as long as it does,
    at lower clocks, until it is over; Ignore leaves the plan as it is."""
    profiling: Profiling = Profiling()
    """How the running job is measured at several clocks before a plan is made."""
    measurement: Measurement = Measurement()
    """How the savings are measured once a plan is active."""


class Condition(Contract):
    """A Kubernetes condition (metav1.Condition)."""

    type: Annotated[str, Field(max_length=316)]
    """Kind of the condition, in CamelCase."""
    status: Annotated[str, Field(pattern="^(True|False|Unknown)$")]
    """True, False or Unknown."""
    reason: Annotated[str, Field(max_length=1024)]
    """Why, as one word in CamelCase."""
    message: Text
    """Why, as a sentence, and what to do."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When the status last changed."""
    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """The metadata.generation that this condition speaks of."""


class Estimate(Contract):
    """A measured figure with its 95% confidence interval."""

    mean: float
    """The mean."""
    ci95_low: float
    """Lower end of the 95% confidence interval."""
    ci95_high: float
    """Upper end of the 95% confidence interval."""


class ArmSummary(Contract):
    """One arm of the comparison: iterations with the plan, or at default clocks."""

    iterations: Annotated[int, Field(ge=0)]
    """Iterations counted."""
    iteration_time_s: Estimate
    """Seconds of an iteration, with its confidence interval."""
    energy_per_iteration_j: Estimate
    """Joules of an iteration, all GPUs of the job together."""


class MeasuredSavings(Contract):
    """Plan blocks against control blocks, from the GPUs' energy counters. Absent until four pairs are complete."""

    pairs: Annotated[int, Field(ge=4)]
    """Complete pairs of blocks."""
    control: ArmSummary
    """Iterations at default clocks."""
    plan: ArmSummary
    """Iterations with the plan."""
    savings: Estimate
    """Fraction of energy saved (0.15 is 15%)."""
    slowdown: Estimate
    """Fraction by which an iteration lasts longer with the plan."""


class FrontierPoint(Contract):
    """A point of the frontier."""

    iteration_time_s: Annotated[float, Field(gt=0)]
    """Seconds of an iteration."""
    lower_bound_j: Annotated[float, Field(ge=0)]
    """Joules below which no plan of supported clocks can get at this time."""


class PlanSummary(Contract):
    """A plan, in figures of the planner."""

    hash: Hash
    """Content hash of the plan; nodes report the same when they have it."""
    granularity: Granularity
    """The granularity that was taken: instruction, phase, kind or rank."""
    t_min_s: Annotated[float, Field(gt=0)]
    """Predicted seconds of an iteration with everything at default clocks (T_min)."""
    iteration_time_s: Annotated[float, Field(gt=0)]
    """Predicted seconds of an iteration with the plan (T), switching lags included."""
    baseline_j: Annotated[float, Field(ge=0)]
    """Predicted joules of an iteration at default clocks."""
    energy_j: Annotated[float, Field(ge=0)]
    """Predicted joules of an iteration with the plan."""
    lower_bound_j: Annotated[float, Field(ge=0)]
    """Joules below which no plan can get at that iteration time."""
    predicted_savings: float
    """Fraction of energy that the plan is predicted to save (0.15 is 15%)."""
    bound_savings: float
    """Fraction of energy that no plan can exceed at that iteration time."""
    switch_s: Annotated[float, Field(ge=0)] | None = None
    """Seconds that a switch of clock costs the work on its GPU by itself, as tried in the job and planned with: 0 where
    no cost could be told from the job's own noise. Absent where that wasn't tried."""
    switch_half_s: Annotated[float, Field(ge=0)] | None = None
    """Half the 95% interval of what was found, in seconds."""


class WithdrawnPlan(Contract):
    """A plan that made iterations longer than allowed, and was taken back."""

    hash: Hash
    """Its content hash; it is never sent again."""
    generation: Annotated[int, Field(ge=0)]
    """The metadata.generation of the EnergyPlan at the time."""
    slowdown: Estimate | None = None
    """The slowdown that was measured; absent where a node's agent was surer than these figures."""
    reserve: Annotated[float, Field(ge=0, le=1)]
    """The reserve of plans from then on: how much longer than measured, as a fraction, slowed work may take without
    making an iteration longer."""


class Setback(Contract):
    """What was in the way of a plan and may be over later: it is tried again, with what is measured by then."""

    reason: Annotated[str, Field(max_length=64)]
    """What it is, as conditions have it: SweepIncomplete, ModelMismatch or PlannerTimeout."""
    tries: Annotated[int, Field(ge=1)]
    """How often in a row."""
    message: Text
    """As it was the last time."""
    next_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it is tried again."""
    generation: Annotated[int, Field(ge=0)]
    """The metadata.generation of the EnergyPlan at the time: of another one, all is tried anew."""
    attempt: Annotated[int, Field(ge=0)]
    """The job's attempt at the time: the same."""


class Straggler(Contract):
    """A pipeline that takes longer than others of its job, which wait for it, and what they make of that."""

    key: Hash
    """Tells what is known of it from what was known before."""
    replicas: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=1024)]
    """Indices of the data-parallel replicas that are slower."""
    slowdown: Annotated[float, Field(ge=1)]
    """How many times as long as usual the work of the slowest rank of them takes."""
    reason: Annotated[str, Field(max_length=64)]
    """How it is known: Announced, by the job's annotation; or told by its ranks: Heat, Power or Brake, where the driver
    says so, or Slow."""
    since: Annotated[str, Field(json_schema_extra={"format": "date-time"})]
    """When it became known."""
    until: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = None
    """When it is over at the latest; absent where nobody says."""
    hash: Hash | None = None
    """The plan in which the other pipelines take as long as it does; absent while there is none."""
    iteration_time_s: Annotated[float, Field(gt=0)] | None = None
    """Predicted seconds of an iteration that it holds up."""
    predicted_savings: float | None = None
    """Fraction of the whole job's energy that is predicted to be saved while it lasts."""
    predicted_unstretched: float | None = None
    """The same if the others didn't take longer for it."""
    disproved: bool = False
    """Whether iterations at default clocks were sooner done than with it, so that nobody waits for it any more."""
    message: Text
    """All that in one sentence."""


class EnergyPlanStatus(Contract):
    """What has come of it: the phase, the plan, and savings as measured. Written by Joulepath."""

    phase: Phase = Phase.PENDING
    """Pending: waits for the job and its ranks. Profiling: measures the work at several clocks, minutes. Planned: the
    nodes are given the plan. Active: the plan is in force. Idle: a job without a pipeline saves nothing at the slowdown
    that is allowed; the message says what more would buy. Completed: the job has ended. Refused: no plan for this job;
    the message says why and what to do."""
    message: Text = ""
    """What is going on, or what to do, in one sentence."""
    progress: Annotated[str, Field(max_length=64)] | None = None
    """How far the phase has come, for `kubectl get`: 3/12 blocks of the sweep, 7/8 ranks that have the plan ready,
    5/24 pairs of blocks measured; when Idle what would be saved at most by how much slowdown, 9.1% at +5%."""
    observed_generation: Annotated[int, Field(ge=0)] = 0
    """The metadata.generation that this status speaks of."""
    job_uid: UID | None = None
    """UID of the job that this status speaks of."""
    policy: Text | None = None
    """What the cluster's EnergyPolicy leaves of what is asked for, where that is less."""
    policy_hash: Hash | None = None
    """Tells what it leaves for this job and its GPUs from what it left before; absent where that is all."""
    topology: Topology | None = None
    """The pipeline as the running ranks report it."""
    profile: Name | None = None
    """Name of the EnergyProfile that the plan was made from."""
    plan: PlanSummary | None = None
    """The plan, in figures of the planner; the phase says whether it is in force."""
    predicted: Annotated[str, Field(max_length=64)] | None = None
    """Predicted savings in words, for `kubectl get`: 13.9%."""
    frontier: Annotated[tuple[FrontierPoint, ...], Field(max_length=33)] = ()
    """Least energy for each iteration time: what more slowdown would buy."""
    measured: MeasuredSavings | None = None
    """Savings and slowdown from the GPUs' energy counters; absent until four pairs of blocks are complete."""
    savings: Annotated[str, Field(max_length=64)] | None = None
    """Measured savings in words, for `kubectl get`: 15.2% ± 0.4, or not yet known."""
    straggler: Straggler | None = None
    """The pipeline that the others wait for, while one is known to be slower."""
    disproved_announcement: Hash | None = None
    """Tells the announcement of a straggler that is believed no more, for as long as it stands on the job: iterations
    at default clocks were sooner done than with it."""
    stragglers_over: Annotated[int, Field(ge=0)] = 0
    """Stragglers of this run that ranks told of and that were over, or none: each has the next one looked at for longer
    before anybody is stretched for it."""
    withdrawn: Annotated[tuple[WithdrawnPlan, ...], Field(max_length=16)] = ()
    """Plans of this run that were slower than allowed, the latest last."""
    setback: Setback | None = None
    """What was in the way and is tried again, if anything."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=list_by("type"))] = ()
    """How far it has come: Injected (the trainer is in the job's pods, and every rank reports), Profiled (what the work
    costs at each clock is known), Planned, Active (the plan is in force), and Degraded (something is amiss). Each says
    in its message what it waits for and what to do."""
