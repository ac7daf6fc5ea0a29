"""EnergyPolicy: the word of whoever administers the cluster. It goes before what users ask for.

There is one, named `default`. The operator plans by it, and agents hold to it by themselves as far as they can know:
pause, least clocks, slowdown and names of namespaces; labels of namespaces and kinds of jobs are the operator's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import ConfigDict, Field, ValidationError

from joulepath_crds.contract import Contract, Name, list_by, rule
from joulepath_rules import JOB_NAMES

__all__ = [
    "ANY_GPU",
    "POLICY_NAME",
    "EnergyPolicySpec",
    "LeastClock",
    "MeasurementBudget",
    "Namespaces",
    "ProfilingBudget",
    "read_policy",
]

POLICY_NAME: Final = "default"
ANY_GPU: Final = "*"
_KINDS: Final = [kind.kind for kind in JOB_NAMES]


class LeastClock(Contract):
    """The least clock of a GPU model."""

    gpu_model: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the GPU as NodeReports have it (status.gpus[*].model), or * for all models that are not listed."""
    clock_mhz: Annotated[int, Field(ge=1, le=10000)]
    """SM clock in MHz below which Joulepath never locks it."""


class Namespaces(Contract):
    """Which namespaces may save energy: those that are named here, and those whose labels match."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                rule(
                    "(has(self.names) && self.names.size() > 0) || "
                    "(has(self.matchLabels) && self.matchLabels.size() > 0)",
                    "spec.namespaces names none: give names or matchLabels, or leave spec.namespaces out to allow all",
                )
            ]
        }
    )

    names: Annotated[tuple[Name, ...], Field(max_length=4096, json_schema_extra={"x-kubernetes-list-type": "set"})] = ()
    """Namespaces by name. Agents hold to these by themselves where there are no matchLabels."""
    match_labels: Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Labels that a namespace must have, all of them. Only the operator can read them."""

    def allow(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a namespace with these labels is one of them."""
        matches = bool(self.match_labels) and self.match_labels.items() <= labels.items()
        return namespace in self.names or matches


class ProfilingBudget(Contract):
    """What profiling may cost any job."""

    max_slowdown_percent: Annotated[float, Field(ge=1, le=100)] | None = None
    """How much longer than at default clocks an iteration may last while it is profiled, in percent, at most; an
    EnergyPlan may ask for less (spec.profiling.maxSlowdownPercent)."""


class MeasurementBudget(Contract):
    """What measuring savings may cost any job, once they are known."""

    max_control_percent: Annotated[float, Field(ge=0.05, le=25)] | None = None
    """Share of iterations, in percent, that run at default clocks only to be compared with, at most, once savings are
    known: so much of what is saved is given up. Without this it is 1. Less of it finds a plan that has become slow, and
    how savings change, so much later."""


class EnergyPolicySpec(Contract):
    """What holds for the whole cluster, whatever EnergyPlans ask for. What is left out is not restricted."""

    paused: bool = False
    """Whether all GPUs run default clocks now: no plan is carried out and nothing is profiled. Agents do that by
    themselves within seconds. Trainings go on, and plans are joined again once it is false."""
    pause_reason: Annotated[str, Field(max_length=1024)] = ""
    """Why it is paused, for users: EnergyPlans tell it."""
    min_clocks: Annotated[tuple[LeastClock, ...], Field(max_length=64, json_schema_extra=list_by("gpuModel"))] = ()
    """The least clock of each GPU model. Nothing is planned or profiled below; a plan from before that has a lower one
    is not carried out."""
    max_slowdown_percent: Annotated[float, Field(ge=0, le=50)] | None = None
    """How much longer than at default clocks any plan may let an iteration last, in percent. EnergyPlans that ask for
    more (spec.maxSlowdownPercent) get this, and their status says so."""
    namespaces: Namespaces | None = None
    """Whose EnergyPlans are carried out."""
    job_kinds: Annotated[
        tuple[Annotated[str, Field(max_length=63)], ...],
        Field(
            max_length=16,
            json_schema_extra={
                "x-kubernetes-list-type": "set",
                "x-kubernetes-validations": [
                    rule(
                        f"self.all(one, one in {_KINDS})",
                        f"jobs are of the kinds {', '.join(_KINDS)}: give some of these in spec.jobKinds, or leave it "
                        "out to allow all",
                    )
                ],
            },
        ),
    ] = ()
    """Kinds of the jobs for which EnergyPlans are carried out: PyTorchJob, TrainJob, JobSet, Job."""
    profiling: ProfilingBudget = ProfilingBudget()
    """What profiling may cost."""
    measurement: MeasurementBudget = MeasurementBudget()
    """What measuring savings may cost."""

    def least_clock_mhz(self, gpu_model: str) -> int:
        """The least clock of such a GPU, 0 without one; where its model isn't known, the highest of all models."""
        known = {one.gpu_model: one.clock_mhz for one in self.min_clocks}
        if not gpu_model:
            return max(known.values(), default=0)
        return known.get(gpu_model, known.get(ANY_GPU, 0))

    @property
    def why_paused(self) -> str:
        """In words; it is paused."""
        return f"EnergyPolicy {POLICY_NAME} pauses all plans" + (f": {self.pause_reason}" if self.pause_reason else "")


def read_policy(body: Mapping[str, Any]) -> EnergyPolicySpec:
    """Of an object of the API. One that can't be read, of a newer version, is paused: nobody knows what it forbids."""
    try:
        return EnergyPolicySpec.from_api(body["spec"])
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["spec", *map(str, first["loc"])])
        return EnergyPolicySpec(paused=True, pause_reason=f"it can't be read here, {field}: {first['msg']}"[:1024])
