"""JobPlan: what the operator tells the agents of a job's nodes. One object, clocks by stage, however many nodes.

Which iterations run what is in `joulepath_rules.arms`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import ConfigDict, Field, model_validator

from joulepath_crds.contract import GROUP, UID, Contract, Hash, Name, list_by, rule
from joulepath_crds.energyprofile import Origin, SwitchingCost
from joulepath_crds.labels import InstructionLabel
from joulepath_rules import Purpose
from joulepath_rules.packing import packed, unpacked

__all__ = [
    "BEGINS_ANNOTATION",
    "MOST_PLAN_BYTES",
    "Begins",
    "Blocks",
    "EarlierRounds",
    "JobPlanSpec",
    "StagePlan",
    "Stretched",
    "StretchedStage",
    "Sweep",
    "content_hash",
]

BEGINS_ANNOTATION: Final = f"{GROUP}/begins"
"""On a JobPlan: `Begins` as JSON. Agents are told of changes of metadata, and know by it those that need no reading."""
MOST_PLAN_BYTES: Final = 256 * 2**10
"""Of a spec as JSON: operators write no larger one. Every node of the job gets it."""
_MOST_STAGES: Final = 1024
_LATER: Final = re.compile(r"(At|From)$")

Clock = Annotated[int, Field(ge=0, le=10000)]


class EarlierRounds(Contract):
    """What was swept before, in rounds of this run: each is a JobPlan of its own. Agents need none of it."""

    clocks_mhz: Annotated[tuple[Clock, ...], Field(max_length=400)]
    """Clock of each block, in MHz; 0 is default clocks."""
    iterations: Annotated[int, Field(ge=0)]
    """Iterations of all blocks, and of a sweep before that was lost."""
    noise_s: Annotated[float, Field(ge=0)] = 0.0
    """Noise of an iteration at default clocks, in seconds, as they found it."""
    switching: SwitchingCost | None = None
    """What switches of clock cost, as they found it; absent where that wasn't tried."""


class Sweep(Contract):
    """Profiling: all ranks at one clock for a block, then the next clock."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "!has(self.toAndFroMHz) || self.toAndFroMHz.size() in [0, self.clocksMHz.size()]",
                    "toAndFroMHz and clocksMHz differ in length: give each block one entry in each, or none at all",
                ),
            ]
        }
    )

    clocks_mhz: Annotated[tuple[Clock, ...], Field(min_length=1, max_length=400)]
    """Clock of each block, in MHz, in order; 0 is default clocks. The order is random, returns to default are in it."""
    iterations_per_block: Annotated[int, Field(ge=2, le=101)]
    """Iterations of a block; the first is not counted."""
    to_and_fro_mhz: Annotated[tuple[Clock, ...], Field(max_length=400)] = ()
    """Of each block, the clock that takes turns with its own from one instruction to the next, in MHz; where it is the
    same, the block holds it. Absent or empty: no block has two. Agents that don't know this hold the first."""
    earlier: EarlierRounds | None = None
    """The rounds before this one; absent in the first."""
    origin: Origin | None = None
    """The EnergyProfile that it began with, where there was one. Agents need none of it."""

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if len(self.to_and_fro_mhz) not in (0, len(self.clocks_mhz)):
            raise ValueError(
                f"toAndFroMHz must have one entry for each of the {len(self.clocks_mhz)} blocks of clocksMHz or none "
                f"at all, it has {len(self.to_and_fro_mhz)}"
            )
        return self


class Blocks(Contract):
    """The measurement of savings."""

    iterations: Annotated[int, Field(ge=3, le=1000)]
    """Iterations of a block; the first and the last are not counted."""
    pairs: Annotated[int, Field(ge=0, le=1000)]
    """Pairs of a plan block and a control block that follow one another at first, at most."""
    every: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Afterwards one pair of each so many is measured, and the others run the plan: control blocks cost 1 / (2 every)
    of what is saved. Absent: none is measured any more."""


class StagePlan(Contract):
    """The plan of one stage; its data-parallel replicas and tensor-parallel peers share it."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.order.size() == self.clocksMHz.size() && self.order.size() == self.durationsSeconds.size()",
                    "order, clocksMHz and durationsSeconds differ in length: give each instruction one entry in each",
                ),
            ]
        }
    )

    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    order: Annotated[tuple[InstructionLabel, ...], Field(max_length=65536)]
    """Instructions in order: F0 is the forward of microbatch 0."""
    clocks_mhz: Annotated[tuple[Clock, ...], Field(max_length=65536)]
    """Clock of each instruction, in MHz; 0 is default clocks."""
    durations_s: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=65536)]
    """Predicted seconds of each instruction."""

    @model_validator(mode="after")
    def _aligned(self) -> Self:
        if not len(self.order) == len(self.clocks_mhz) == len(self.durations_s):
            raise ValueError(
                f"stage {self.stage}: order, clocksMHz and durationsSeconds must have one entry for each instruction, "
                f"they have {len(self.order)}, {len(self.clocks_mhz)} and {len(self.durations_s)}"
            )
        return self


class StretchedStage(Contract):
    """The plan of one stage for pipelines that wait for another one: the same instructions at other clocks."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.clocksMHz.size() == self.durationsSeconds.size()",
                    "clocksMHz and durationsSeconds differ in length: give each instruction one entry in each",
                ),
            ]
        }
    )

    stage: Annotated[int, Field(ge=0)]
    """Index of the stage."""
    clocks_mhz: Annotated[tuple[Clock, ...], Field(max_length=65536)]
    """Clock of each instruction of that stage's plan, in MHz; 0 is default clocks."""
    durations_s: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(max_length=65536)]
    """Predicted seconds of each of them."""


Replicas = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=65536)]


class Stretched(Contract):
    """What some replicas run in place of the plan while another one is held up. All others run the plan, and so do
    agents that don't know this field: it is in time for each of them."""

    replicas: Replicas
    """Indices of the data-parallel replicas that wait for another one, and run these stages."""
    default_replicas: Replicas = ()
    """Those that are held up and run default clocks: what is slack in others' plan they need themselves."""
    stages: Annotated[
        tuple[StretchedStage, ...], Field(min_length=1, max_length=_MOST_STAGES, json_schema_extra=list_by("stage"))
    ]
    """Clocks by stage."""
    control_iteration_time_s: Annotated[float, Field(gt=0)]
    """Expected seconds of an iteration at default clocks, held up."""
    plan_iteration_time_s: Annotated[float, Field(gt=0)]
    """Expected seconds of an iteration with the plan, held up."""


class JobPlanSpec(Contract):
    """What to run, from which iteration on."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "self.purpose != 'Sweep' || has(self.sweep)",
                    "spec.purpose is Sweep, but spec.sweep is absent: give the clocks to profile at",
                ),
                rule(
                    "self.purpose != 'Enforce' || has(self.packedStages) || "
                    "(has(self.stages) && self.stages.size() > 0)",
                    "spec.purpose is Enforce, but spec.stages is empty: give the clocks of every stage",
                ),
                rule(
                    "self.jobUID == oldSelf.jobUID",
                    "'spec.jobUID is \"' + self.jobUID + '\", but this JobPlan was made for \"' + oldSelf.jobUID + "
                    "'\" and its job cannot change: make a new JobPlan'",
                ),
            ]
        }
    )

    energy_plan: Name
    """Name of the EnergyPlan that this belongs to."""
    job: Name
    """Name of the job."""
    job_uid: UID
    """UID of the job."""
    attempt: Annotated[int, Field(ge=0)] = 0
    """The attempt (elastic restart) that this was made for."""
    purpose: Purpose
    """Sweep profiles, Enforce saves."""
    hash: Hash
    """Content hash of all but activateAt and sparseFrom: what agents check, stage and report."""
    activate_at: Annotated[int, Field(ge=0)] | None = None
    """The iteration from which on it is in force; absent until every node has staged it."""
    sparse_from: Annotated[int, Field(ge=0)] | None = None
    """The iteration from which on pairs are sparse (blocks.every), since enough is known; absent until then."""
    sweep: Sweep | None = None
    """The clocks to profile at (Sweep)."""
    blocks: Blocks | None = None
    """How plan and default clocks alternate while savings are measured (Enforce); absent: the plan alone."""
    stages: Annotated[tuple[StagePlan, ...], Field(max_length=_MOST_STAGES, json_schema_extra=list_by("stage"))] = ()
    """Clocks by stage (Enforce)."""
    packed_stages: Annotated[str, Field(max_length=MOST_PLAN_BYTES)] | None = None
    """The same as one string, compressed, in place of stages: where these are so many that the object would be too
    large. Agents that don't know this run default clocks."""
    stretched: Stretched | None = None
    """What replicas run that wait for another one (Enforce); absent while none is held up."""
    default_clock_mhz: Annotated[int, Field(gt=0)]
    """The SM clock, in MHz, that default clocks amount to on these GPUs, under load."""
    control_iteration_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Expected seconds of an iteration at default clocks; 0 while unknown."""
    plan_iteration_time_s: Annotated[float, Field(ge=0)] = 0.0
    """Expected seconds of an iteration with the plan: the guard compares with it; 0 while unknown."""
    allowed_slowdown: Annotated[float, Field(ge=0, le=0.5)] | None = None
    """How much longer than at default clocks an iteration may last, as a fraction, by the EnergyPlan: agents hold the
    plan to it by their own measurements. Absent in plans of older operators."""

    @model_validator(mode="after")
    def _stretches_its_stages(self) -> Self:
        lengths = {one.stage: len(one.order) for one in self.stages}
        for one in self.stretched.stages if self.stretched is not None else ():
            if not len(one.clocks_mhz) == len(one.durations_s) == lengths.get(one.stage, -1):
                raise ValueError(
                    f"stretched, stage {one.stage}: clocksMHz and durationsSeconds must have one entry for each of the "
                    f"{lengths.get(one.stage, 'no')} instructions of that stage's plan, they have "
                    f"{len(one.clocks_mhz)} and {len(one.durations_s)}"
                )
        return self

    @property
    def size(self) -> int:
        """Bytes of its JSON, without what is written later: a plan that fits goes on to fit."""
        as_made = self.model_copy(update={"activate_at": None, "sparse_from": None})
        return len(json.dumps(as_made.to_api(), separators=(",", ":")))

    def fitting(self) -> Self:
        """The same with its stages packed, where it would be too large; it may be too large still (`size`)."""
        if not self.stages or self.packed_stages is not None or self.size <= MOST_PLAN_BYTES:
            return self
        try:
            return self.model_copy(update={"packed_stages": packed([_columns(stage) for stage in self.stages])})
        except ValueError:  # nobody would unpack it
            return self

    def unpacked(self) -> Self:
        """The same with its stages, however it was written. What is packed stays: it is hashed as it is.

        Raises:
            ValueError: What is packed are no stages, or too many.
        """
        if self.packed_stages is None:
            return self
        try:
            stages = tuple(_stage(columns) for columns in json.loads(unpacked(self.packed_stages)))
        except (TypeError, KeyError, IndexError, RecursionError) as error:
            raise ValueError(f"packedStages are no stages ({error!r})") from None
        if len(stages) > _MOST_STAGES:
            raise ValueError(f"packedStages are {len(stages)} stages, a plan has up to {_MOST_STAGES}")
        return self.model_copy(update={"stages": stages})

    def to_api(self) -> dict[str, Any]:
        """See Contract; stages stand there once."""
        if self.packed_stages is None:
            return super().to_api()
        body = super(JobPlanSpec, self.model_copy(update={"stages": ()})).to_api()
        del body["stages"]
        return body


class Begins(Contract):
    """What of a plan is written after it: whoever has the plan of that hash needs nothing else of the object."""

    hash: Hash
    """The plan's."""
    activate_at: Annotated[int, Field(ge=0)] | None = None
    """The plan's."""
    sparse_from: Annotated[int, Field(ge=0)] | None = None
    """The plan's."""

    @classmethod
    def of(cls, spec: JobPlanSpec) -> Self:
        """As it stands in a plan."""
        return cls(hash=spec.hash, activate_at=spec.activate_at, sparse_from=spec.sparse_from)


def _columns(stage: StagePlan) -> dict[str, Any]:
    """A stage whose clocks and seconds are numbers of pairs of both: there are few of these, as seconds follow from the
    clock."""
    chosen = list(zip(stage.clocks_mhz, stage.durations_s, strict=True))
    choices = {choice: number for number, choice in enumerate(dict.fromkeys(chosen))}
    return {
        "stage": stage.stage,
        "order": stage.order,
        "choices": list(choices),
        "chosen": [choices[choice] for choice in chosen],
    }


def _stage(columns: Mapping[str, Any]) -> StagePlan:
    chosen: Sequence[Sequence[Any]] = [columns["choices"][number] for number in columns["chosen"]]
    return StagePlan(
        stage=columns["stage"],
        order=tuple(columns["order"]),
        clocks_mhz=tuple(clock for clock, _ in chosen),
        durations_s=tuple(seconds for _, seconds in chosen),
    )


def content_hash(spec: JobPlanSpec | Mapping[str, Any]) -> str:
    """The hash that stands for a plan's content, 16 hex digits: of a model, or of the JSON of an API object.

    All fields count, also those that this reader doesn't know, since a newer writer hashed them as well. `hash` itself
    doesn't, nor what says from which iteration on something holds, by its name (`activateAt`, `sparseFrom`): that is
    written later.
    """
    body = spec.to_api() if isinstance(spec, JobPlanSpec) else spec
    content = {name: _canonical(value) for name, value in body.items() if name != "hash" and not _LATER.search(name)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _canonical(value: Any) -> Any:
    """The same for 1 and 1.0: the API server stores the latter as the former."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _canonical(one) for name, one in value.items()}
        case list() | tuple():
            return [_canonical(one) for one in value]
        case _:
            return value
