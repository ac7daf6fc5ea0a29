"""NodeReport and NodeState: what one node's agent tells the operator. Written by that agent only, on change.

What is written often is apart, and small: the API server's work for an object grows with the number of its fields. So
what ranks measure goes as one string, a NodeMeasurement. Older agents told all of it in the NodeReport.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from joulepath_crds.contract import UID, Contract, Hash, Name, Text, list_by
from joulepath_crds.labels import InstructionKind, InstructionLabel
from joulepath_crds.topology import Coordinates
from joulepath_rules import Arm, RankState, Sort

__all__ = [
    "INJECTOR_ABSENT",
    "INJECTOR_READY",
    "INJECTOR_UNHEARD",
    "INJECTOR_UNTOLD",
    "MOST_BLOCKS",
    "MOST_INJECTIONS",
    "MOST_OLD_PYTHONS",
    "MOST_SLOWDOWN",
    "MOST_TARGETS",
    "POLICY_HEARD",
    "POLICY_PAUSED",
    "POLICY_PAUSING",
    "POLICY_UNHEARD",
    "BlockReport",
    "GpuReport",
    "InjectionReport",
    "InstructionMeasurement",
    "InstructionTime",
    "JobNow",
    "JobReport",
    "NodeReportStatus",
    "NodeStateStatus",
    "OldPythonReport",
    "RankMeasured",
    "RankNow",
    "RankReport",
    "SwitchingLag",
    "TargetLag",
    "WaitMeasurement",
    "report_interval_s",
]

MOST_BLOCKS: Final = 256
"""Blocks that a rank reports: the newest ones, of the plan that is staged."""
MOST_INJECTIONS: Final = 128
"""Containers that a node reports: two for each GPU that it may report, 100 KB at most."""
MOST_OLD_PYTHONS: Final = 64
"""Pods that a node reports for their Python, the newest: as many as have a GPU of their own."""
MOST_SLOWDOWN: Final = 10.0
"""How many times as long work is said to take at most."""
MOST_TARGETS: Final = 64
"""Clocks and directions of which lags are told."""
INJECTOR_ABSENT: Final = "Absent"
INJECTOR_READY: Final = "Ready"
INJECTOR_UNHEARD: Final = "Unheard"
INJECTOR_UNTOLD: Final = "Untold"
POLICY_HEARD: Final = "Heard"
POLICY_PAUSING: Final = "Pausing"
POLICY_PAUSED: Final = "Paused"
POLICY_UNHEARD: Final = "Unheard"


def report_interval_s(world_size: int) -> float:
    """Longest time between two reports of what ranks do where anything changes; what is waited for is told at once.

    Half a minute, and up to a minute in a job of so many ranks that its nodes would write more than twice a second.
    """
    return min(60.0, max(30.0, world_size / 16))


class TargetLag(Contract):
    """Seconds from the call that sets one clock to that clock in force, in one direction."""

    clock_mhz: Annotated[int, Field(ge=0)]
    """Clock that was set, in MHz; 0 is default clocks."""
    direction: Literal["up", "down"]
    """Whether it was higher or lower than the clock before."""
    median_s: Annotated[float, Field(ge=0)]
    """Seconds, median."""
    p95_s: Annotated[float, Field(ge=0)]
    """Seconds, 95th percentile."""
    samples: Annotated[int, Field(gt=0)]
    """Switches measured."""


class SwitchingLag(Contract):
    """Seconds from the call that sets a clock to that clock in force."""

    up_median_s: Annotated[float, Field(ge=0)]
    """Seconds to a higher clock, median."""
    up_p95_s: Annotated[float, Field(ge=0)]
    """Seconds to a higher clock, 95th percentile."""
    down_median_s: Annotated[float, Field(ge=0)]
    """Seconds to a lower clock, median."""
    down_p95_s: Annotated[float, Field(ge=0)]
    """Seconds to a lower clock, 95th percentile."""
    samples: Annotated[int, Field(ge=0)]
    """Switches measured."""
    targets: (
        Annotated[
            tuple[TargetLag, ...],
            Field(max_length=MOST_TARGETS, json_schema_extra=list_by("clockMHz", "direction")),
        ]
        | None
    ) = None
    """The same by the clock that was set, where it is known of that one; absent where only the above is."""


class GpuReport(Contract):
    """A GPU of the node."""

    uuid: UID
    """As NVML tells it."""
    model: Name
    """Name of the GPU."""
    driver: Annotated[str, Field(max_length=64)] = ""
    """Version of its driver; empty where that is not known."""
    power_cap_w: Annotated[float, Field(ge=0)] | None = None
    """Watts that the driver holds it to; absent where that is not known."""
    default_clock_mhz: Annotated[int, Field(gt=0)]
    """The highest SM clock, in MHz, that it may run at without a lock: its own, or the site's."""
    settled_clock_mhz: Annotated[int, Field(gt=0)] | None = None
    """The SM clock, in MHz, that it settles at without a lock while it computes, as measured: below the highest one
    where power or heat cap it; absent while unknown."""
    supported_clocks_mhz: Annotated[tuple[Annotated[int, Field(gt=0, le=10000)], ...], Field(max_length=1024)]
    """SM clocks that can be set, in MHz, highest first."""
    locked: bool = False
    """Whether the agent holds a lock on its clock now."""
    lag: SwitchingLag | None = None
    """How long it takes to change its clock, as measured on it; absent while unknown."""
    refused: Text | None = None
    """Why the agent won't touch it (MIG, shared, no permission); absent if it may."""


class InstructionMeasurement(Contract):
    """One kind of instruction at one clock, as measured in a sweep or at default clocks."""

    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    kind: InstructionKind
    """Kind of the instruction."""
    clock_mhz: Annotated[int, Field(ge=0)]
    """Clock that was held, in MHz; 0 is default clocks."""
    samples: Annotated[int, Field(ge=0)]
    """Instructions measured."""
    time_s: Annotated[float, Field(gt=0)]
    """Mean seconds."""
    time_standard_error_s: Annotated[float, Field(ge=0)]
    """Standard error of the mean, in seconds."""
    power_w: Annotated[float, Field(ge=0)]
    """Mean watts while it runs, by regression of the energy counter."""
    power_standard_error_w: Annotated[float, Field(ge=0)]
    """Standard error of that, in watts."""

    @property
    def known(self) -> bool:
        """Whether there is anything to plan with: nothing that runs draws no power."""
        return self.samples > 0 and self.power_w > 0


class WaitMeasurement(Contract):
    """Power of the GPU while it waits, at one clock."""

    clock_mhz: Annotated[int, Field(ge=0)]
    """Clock that was held, in MHz; 0 is default clocks."""
    power_w: Annotated[float, Field(ge=0)]
    """Watts, by the same regression."""
    power_standard_error_w: Annotated[float, Field(ge=0)]
    """Standard error of that, in watts."""


class InstructionTime(Contract):
    """Median begin and end of an instruction, from the begin of its rank's iteration, at default clocks."""

    instruction: InstructionLabel
    """F0 is the forward of microbatch 0."""
    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    begin_s: float
    """Seconds from the begin of the iteration on this rank."""
    end_s: float
    """Seconds from the begin of the iteration on this rank."""


class BlockReport(Contract):
    """What a rank measured in one block; the iterations that don't count are left out."""

    hash: Hash
    """The plan that the block belongs to."""
    block: Annotated[int, Field(ge=0)]
    """Index of the block."""
    arm: Arm
    """plan, control or sweep."""
    iterations: Annotated[int, Field(ge=0)]
    """Iterations counted."""
    sort: Sort = Sort.WHOLE
    """whole, own or disturbed: undisturbed ones to the begin of the next; without what is between, such as an
    evaluation; or the ones after that. Older agents don't tell."""
    iteration_time_s: Annotated[float, Field(ge=0)]
    """Mean seconds of an iteration."""
    iteration_time_deviation_s: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of that among the iterations, in seconds."""
    energy_per_iteration_j: Annotated[float, Field(ge=0)]
    """Mean joules of an iteration, from the energy counter of this rank's GPU."""
    switched: bool = False
    """Whether its clock went to and fro with each instruction, as a sweep may ask; older agents hold one."""


class RankNow(Contract):
    """A rank, one process with one GPU, and what it does now."""

    rank: Annotated[int, Field(ge=0)]
    """Global rank."""
    pod: Name
    """Name of its pod."""
    pod_uid: UID
    """UID of its pod, as the kernel's cgroup tells it."""
    gpu_uuid: UID
    """Its GPU."""
    coordinates: Coordinates
    """Where it stands in the job."""
    data_parallel: Annotated[int, Field(ge=1)] = 1
    """Replicas, as this rank knows."""
    tensor_parallel: Annotated[int, Field(ge=1)] = 1
    """Tensor-parallel peers of a stage, as this rank knows."""
    stages: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=1024)]
    """Stages that it runs."""
    stage_count: Annotated[int, Field(ge=1)]
    """Stages of the whole pipeline."""
    schedule: Annotated[str, Field(max_length=64)]
    """Name of the schedule, as recognised: 1F1B, GPipe, or Recorded."""
    microbatches: Annotated[int, Field(ge=1)]
    """Microbatches of an iteration."""
    framework: Annotated[str, Field(max_length=1024)] = ""
    """The training frameworks in its process, with their versions."""
    lacks: Annotated[str, Field(max_length=1024)] = ""
    """What of them isn't as the trainer knows it, and what isn't seen therefore; empty where all is."""
    iteration: Annotated[int, Field(ge=0)] = 0
    """The iteration that it was at when this was written."""
    iteration_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Median seconds of the last iterations; 0 while unknown."""
    state: RankState = RankState.OBSERVING
    """What the agent does for it."""
    reason: Text = ""
    """Why it is at default clocks although a plan is there, or why it is refused."""
    staged_hash: Hash | None = None
    """The plan that is ready to run here."""
    staged_at_iteration: Annotated[int, Field(ge=0)] | None = None
    """The iteration at which that plan was ready."""
    applied_hash: Hash | None = None
    """The plan that is in force here."""
    slowdown: Annotated[float, Field(ge=1, le=MOST_SLOWDOWN)] = 1.0
    """How many times as long as usual its own instructions take, at the same clocks; 1 while as usual."""
    slowed_by: Annotated[str, Field(max_length=64)] = ""
    """What the driver says then of its GPU's clock: heat, power or brake; empty where it says nothing."""
    control_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Median seconds of an iteration at default clocks; 0 while unknown."""
    tail_s: Annotated[float, Field(ge=0)] = 0.0
    """Least seconds from the last instruction to the next iteration, at default clocks."""


class RankMeasured(Contract):
    """What was measured of a rank. It may be a thousand times as much as what the rank does now."""

    order: Annotated[tuple[InstructionLabel, ...], Field(max_length=65536)] = ()
    """Instructions of an iteration in the order in which they ran, F0 the forward of microbatch 0; 3:F0, with the
    stage, where the rank runs several. Empty until one iteration is complete."""
    timeline: Annotated[tuple[InstructionTime, ...], Field(max_length=65536)] = ()
    """Median begin and end of each instruction, in seconds, at default clocks."""
    plan_timeline: Annotated[tuple[InstructionTime, ...], Field(max_length=65536)] = ()
    """Median begin and end of each instruction, in seconds, in plan blocks."""
    instructions: Annotated[tuple[InstructionMeasurement, ...], Field(max_length=16384)] = ()
    """Measured time and power of each kind at each clock."""
    waits: Annotated[tuple[WaitMeasurement, ...], Field(max_length=400)] = ()
    """Measured power of waiting at each clock."""
    blocks: Annotated[tuple[BlockReport, ...], Field(max_length=MOST_BLOCKS)] = ()
    """Blocks completed."""


class RankReport(RankMeasured, RankNow):
    """All of a rank."""


class JobNow(Contract):
    """The ranks of one job on a node, and what they do now."""

    job_uid: UID
    """UID of the job."""
    namespace: Name
    """Namespace of the job."""
    job: Name
    """Name of the job."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """The attempt (elastic restart) of these ranks."""
    world_size: Annotated[int, Field(ge=1)]
    """Ranks of the whole job."""
    ranks: Annotated[tuple[RankNow, ...], Field(max_length=256)]
    """Ranks on this node."""


class JobReport(JobNow):
    """All of the ranks of one job on a node."""

    ranks: Annotated[tuple[RankReport, ...], Field(max_length=256)]
    """Ranks on this node."""


class InjectionReport(Contract):
    """What the node's injector did with a container that has GPUs, of a job that asks for a plan."""

    pod_uid: UID
    """UID of its pod."""
    namespace: Name
    """Namespace of its pod."""
    pod: Name
    """Name of its pod."""
    container: Name
    """Name of the container."""
    outcome: Annotated[str, Field(max_length=64)]
    """Injected, Late (the agent didn't answer in time), Unsuited (it can't take the trainer) or Before (it ran before
    the injector did)."""
    why: Annotated[str, Field(max_length=256)] = ""
    """What is in the way, in a sentence."""


class OldPythonReport(Contract):
    """A pod in which a Python imports torch that is too old for the trainer."""

    pod_uid: UID
    """UID of the pod."""
    version: Annotated[str, Field(max_length=16)]
    """Of that Python, such as 3.8."""
    needed: Annotated[str, Field(max_length=16)]
    """The oldest version that the trainer runs on."""


class NodeStateStatus(Contract):
    """What the ranks of a node do now."""

    jobs: Annotated[tuple[JobNow, ...], Field(max_length=256)] = ()
    """Jobs that have ranks on the node."""


class NodeReportStatus(Contract):
    """All that the node's agent knows."""

    agent_version: Annotated[str, Field(max_length=64)] = ""
    """Version of the agent."""
    gpus: Annotated[tuple[GpuReport, ...], Field(max_length=64, json_schema_extra=list_by("uuid"))] = ()
    """GPUs of the node."""
    jobs: Annotated[tuple[JobReport, ...], Field(max_length=256, json_schema_extra=list_by("jobUID", "attempt"))] = ()
    """Jobs that have ranks on the node, as older agents tell them; newer ones write a NodeState."""
    injection: Annotated[
        tuple[InjectionReport, ...],
        Field(max_length=MOST_INJECTIONS, json_schema_extra=list_by("podUID", "container")),
    ] = ()
    """Containers that the injector of the node has met, of pods that are there."""
    injector: Annotated[str, Field(max_length=64)] = ""
    """The injector of the node: Ready, Untold (NRI is off: the container runtime has no socket for it), Unheard (the
    runtime refuses it, or doesn't tell it of pods) or Absent; empty in a report of an older agent or CRD."""
    injector_why: Annotated[str, Field(max_length=256)] = ""
    """Why the container runtime doesn't tell the injector of pods."""
    old_pythons: Annotated[
        tuple[OldPythonReport, ...], Field(max_length=MOST_OLD_PYTHONS, json_schema_extra=list_by("podUID"))
    ] = ()
    """Pods, here or gone, in which a Python imports torch that is too old for the trainer."""
    policy: Annotated[str, Field(max_length=64)] = ""
    """Of the EnergyPolicy: Heard (it is held to, or there is none), Pausing, Paused (no rank runs a plan) or Unheard
    (it can't be read yet, so that no plan begins); empty in a report of an older agent or CRD."""
