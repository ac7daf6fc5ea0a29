"""What the cluster's EnergyPolicy leaves of what an EnergyPlan asks for, and how that is told. Pure.

Plans and sweeps are made without the clocks that are too low: agents would carry out none that has one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import replace
from math import ceil
from typing import Final

from joulepath_crds import POLICY_NAME, EnergyPlanSpec, EnergyPolicySpec, GpuReport, JobPlanSpec
from joulepath_operator.facts.observation import NodeJob, Observation

__all__ = ["barred", "bounded", "breaks", "every", "in_words", "left_hash", "needs_labels", "special"]

_EVERY: Final = 50
"""Sparse pairs are one in so many: a control block in a hundred costs 1% of what is saved."""


def every(policy: EnergyPolicySpec) -> int:
    """How many pairs there are for one that is measured, once enough is known: a pair is half control."""
    most_percent = policy.measurement.max_control_percent
    return _EVERY if most_percent is None else max(_EVERY, ceil(50 / most_percent))


def special(policy: EnergyPolicySpec, gpu_model: str) -> dict[str, int]:
    """What else of it a plan for such GPUs depends on; empty where it says nothing of that."""
    found = {"least clock": policy.least_clock_mhz(gpu_model), "every": every(policy)}
    return found if found != {"least clock": 0, "every": _EVERY} else {}


def bounded(seen: Observation) -> Observation:
    """The same with a user who asks for no more, and GPUs that have no other clocks, than is allowed."""
    nodes = (
        tuple(_without_low_clocks(node, seen.policy) for node in seen.nodes) if seen.policy.min_clocks else seen.nodes
    )
    return replace(seen, spec=_bounded(seen.spec, seen.policy), nodes=nodes)


def left_hash(spec: EnergyPlanSpec, policy: EnergyPolicySpec, gpu_model: str) -> str | None:
    """Tells what is left of a spec on such GPUs (empty: unknown), whatever it is called; None where that is all."""
    left, least_mhz = _bounded(spec, policy), policy.least_clock_mhz(gpu_model)
    if left == spec and not least_mhz:
        return None
    told = [left.max_slowdown_percent, left.profiling.max_slowdown_percent, least_mhz]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]


def in_words(spec: EnergyPlanSpec, policy: EnergyPolicySpec) -> str | None:
    """What is less than the spec asks for, in a sentence; None if nothing."""
    left, told = _bounded(spec, policy), list[str]()
    if left.max_slowdown_percent < spec.max_slowdown_percent:
        told.append(f"maxSlowdownPercent is {left.max_slowdown_percent:g}, not {spec.max_slowdown_percent:g}")
    has, asked = left.profiling.max_slowdown_percent, spec.profiling.max_slowdown_percent
    if has < asked:
        told.append(f"profiling.maxSlowdownPercent is {has:g}, not {asked:g}")
    if policy.min_clocks:
        least = ", ".join(f"{one.clock_mhz} MHz on {one.gpu_model}" for one in policy.min_clocks)
        told.append(f"no clock is below {least}")
    if every(policy) > _EVERY:
        told.append(f"one pair of blocks in {every(policy)} is measured once savings are known")
    return f"By EnergyPolicy {POLICY_NAME}, {'; '.join(told)}." if told else None


def breaks(policy: EnergyPolicySpec, plan: JobPlanSpec, gpus: Collection[GpuReport]) -> bool:
    """Whether a plan has a clock that is too low on one of these GPUs, or may be slower than is allowed by now: agents
    carry out none of the former, and their guards would refuse the latter for good."""
    most = policy.max_slowdown_percent
    if most is not None and plan.allowed_slowdown is not None and plan.allowed_slowdown > most / 100:
        return True
    least_mhz = max((policy.least_clock_mhz(gpu.model) for gpu in gpus), default=0)
    clocks_mhz = {clock for stage in plan.stages for clock in stage.clocks_mhz}
    if plan.sweep is not None:
        clocks_mhz.update(plan.sweep.clocks_mhz, plan.sweep.to_and_fro_mhz)
    if plan.stretched is not None:
        clocks_mhz.update(clock for stage in plan.stretched.stages for clock in stage.clocks_mhz)
    return any(0 < clock < least_mhz for clock in clocks_mhz)


def needs_labels(policy: EnergyPolicySpec, namespace: str) -> bool:
    """Whether it goes by its labels if this namespace may save energy."""
    allowed = policy.namespaces
    return allowed is not None and bool(allowed.match_labels) and not allowed.allow(namespace, {})


def barred(seen: Observation) -> str | None:
    """Why there is no plan for this job at all: field, value and whom to ask; None where there may be one."""
    policy, kind = seen.policy, seen.spec.job.kind
    ask = "ask whoever administers this cluster to allow it (kubectl edit energypolicy default), or delete this one."
    if policy.job_kinds and kind not in policy.job_kinds:
        return (
            f"EnergyPolicy {POLICY_NAME} lets {', '.join(policy.job_kinds)} have EnergyPlans (spec.jobKinds), and "
            f"spec.job.kind is {kind}: {ask}"
        )
    if policy.namespaces is None or policy.namespaces.allow(seen.namespace, seen.namespace_labels):
        return None
    # Whose others are, and by which labels, is no tenant's business.
    what = f"doesn't let namespace {seen.namespace} have EnergyPlans (spec.namespaces)"
    return f"EnergyPolicy {POLICY_NAME} {what}: {ask}"


def _bounded(spec: EnergyPlanSpec, policy: EnergyPolicySpec) -> EnergyPlanSpec:
    def least(asked: float, most: float | None) -> float:
        return asked if most is None else min(asked, most)

    most = policy.profiling.max_slowdown_percent
    profiling = {"max_slowdown_percent": least(spec.profiling.max_slowdown_percent, most)}
    return spec.model_copy(
        update={
            "max_slowdown_percent": least(spec.max_slowdown_percent, policy.max_slowdown_percent),
            "profiling": spec.profiling.model_copy(update=profiling),
        }
    )


def _without_low_clocks(node: NodeJob, policy: EnergyPolicySpec) -> NodeJob:
    """Where a GPU settles stays: it does that without a lock."""

    def left(gpu: GpuReport) -> GpuReport:
        top_mhz = gpu.settled_clock_mhz or gpu.default_clock_mhz
        least_mhz = min(policy.least_clock_mhz(gpu.model), top_mhz)
        clocks = tuple(clock for clock in gpu.supported_clocks_mhz if clock >= least_mhz)
        return gpu.model_copy(update={"supported_clocks_mhz": clocks})

    return replace(node, gpus=tuple(map(left, node.gpus)))
