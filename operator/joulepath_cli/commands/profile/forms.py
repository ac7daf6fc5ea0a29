"""An EnergyProfile as Zeus's CSV or as a manifest, and an EnergyProfile of what a CSV holds."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from typing import Any, Final

import yaml

from joulepath_crds import (
    GROUP,
    INSTRUCTION_KINDS,
    VERSION,
    BlockingPower,
    EnergyProfileSpec,
    KindProfile,
    ProfilePoint,
    StageProfile,
    Topology,
)
from joulepath_planner import Pipeline, Profile, ProfileError, schedule_by_name, simulate
from joulepath_planner.inputs.instruction import KIND_NAMES, is_pair

__all__ = ["HEADER", "as_csv", "as_manifest", "of_csv"]

HEADER: Final = ("stage", "instruction", "frequency", "time", "energy")
_SIMULATED: Final = {"GPipe": "gpipe"}
"""The planner's name of a schedule; what else a job runs lasts about as long as 1F1B."""
_SPLIT: Final = "zb-h1"
"""The planner's name of one that has no whole backwards."""


def as_csv(spec: EnergyProfileSpec) -> str:
    """Its points only: errors, waits, lags and delays have no columns."""
    text = StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(HEADER)
    for stage in spec.stages:
        for kind in stage.kinds:
            name = KIND_NAMES.get(kind.kind, kind.kind)  # a pair is called as its kind is
            rows.writerows((stage.stage, name, one.clock_mhz, one.time_s, one.energy_j) for one in kind.points)
    return text.getvalue()


def as_manifest(spec: EnergyProfileSpec, name: str, namespace: str | None) -> str:
    """What kubectl applies."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    body: dict[str, Any] = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "EnergyProfile",
        "metadata": metadata,
        "spec": spec.to_api(),
    }
    return yaml.safe_dump(body, sort_keys=False, allow_unicode=True)


def of_csv(profile: Profile, topology: Mapping[str, Any]) -> EnergyProfileSpec:
    """The EnergyProfile of a CSV. What that doesn't tell of an iteration is simulated, until a job is measured.

    topology: the fields of `Topology` that a CSV has no columns for.

    Raises:
        ProfileError: It has work that no EnergyProfile holds.
    """
    if other := sorted({kind for _, kind in profile.points if not is_pair(kind)} - set(INSTRUCTION_KINDS)):
        names = ", ".join(KIND_NAMES[kind] for kind in other)
        held = ", ".join(KIND_NAMES[kind] for kind in INSTRUCTION_KINDS)
        raise ProfileError(f"it has rows of {names}, and an EnergyProfile holds {held}; leave the other rows out.")
    stages = profile.stages
    if stages != tuple(range(len(stages))):
        listed = ", ".join(map(str, stages))
        raise ProfileError(f"its stages are {listed}; an EnergyProfile has all of a pipeline, counted from 0.")
    shape = Topology(stages=len(stages), **topology)
    whole = all((stage, "B") in profile.points for stage in stages)
    named = _SIMULATED.get(shape.schedule, "1f1b") if whole else _SPLIT
    gpus = dict.fromkeys(stages, shape.tensor_parallel)
    iteration = simulate(Pipeline(schedule_by_name(named, shape.stages, shape.microbatches), profile, gpus=gpus))
    clocks = sorted({one.clock_mhz for points in profile.points.values() for one in points}, reverse=True)
    return EnergyProfileSpec(
        topology=shape,
        stages=tuple(
            StageProfile(
                stage=stage,
                kinds=tuple(
                    KindProfile(
                        kind=kind,
                        points=tuple(
                            ProfilePoint(clock_mhz=one.clock_mhz, time_s=one.time_s, energy_j=one.energy_j)
                            for one in points
                        ),
                    )
                    for (of, kind), points in profile.points.items()
                    if of == stage
                ),
            )
            for stage in stages
        ),
        blocking_power=tuple(BlockingPower(clock_mhz=clock, power_w=profile.wait_power_w(clock)) for clock in clocks),
        iteration_time_s=iteration.iteration_time_s,
        energy_per_iteration_j=iteration.energy_j,
    )
