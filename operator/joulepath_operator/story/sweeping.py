"""The story's second chapter: the sweep that profiles a running job, until there is a profile."""

from __future__ import annotations

import hashlib
import json
from typing import Final

from joulepath_crds import EnergyPlanStatus, JobPlanSpec, Phase, Purpose, Topology
from joulepath_operator.facts.observation import Decision, StoredPlan, StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.figures.clocks import LEAST_CLOCKS, choose_clocks, make_sweep
from joulepath_operator.figures.coverage import coverage, is_over
from joulepath_operator.figures.delays import measure_delays
from joulepath_operator.figures.profile import build_profile, iteration_noise_s
from joulepath_operator.story.case import ReadyCase

__all__ = ["begin", "go_on"]

_FIRST: Final = "sweep"
_AGAIN: Final = "sweep once more"
"""The inputs of a sweep's JobPlan: an agent that was started anew in the middle has lost what it had measured."""


def begin(case: ReadyCase, inputs: str = _FIRST) -> Decision:
    """Sends the sweep to the nodes."""
    profiling, default = case.seen.spec.profiling, case.gang.default_clock_mhz
    clocks = choose_clocks(case.gang.supported_clocks_mhz(), default, profiling.clocks)
    if len(clocks) < LEAST_CLOCKS:
        message = (
            f"The GPUs have {len(clocks)} clocks in common from {default} MHz down; at least {LEAST_CLOCKS} are "
            "needed to choose from. Check supportedClocksMHz in kubectl get nodereports -o yaml."
        )
        return case.refuse(Refusal.TOO_FEW_CLOCKS, message, condition="Profiled")
    spec = JobPlanSpec(
        energy_plan=case.seen.name,
        job=case.job.name,
        job_uid=case.job.uid,
        attempt=case.gang.attempt,
        purpose=Purpose.SWEEP,
        hash="",
        sweep=make_sweep(clocks, profiling.iterations_per_clock, f"{case.job.uid} {inputs}"),
        default_clock_mhz=default,
        control_iteration_time_s=case.gang.control_time_s,
    )
    plan = case.new_plan(spec, inputs)
    return Decision(_tell(case, plan.spec), write_plan=plan)


def go_on(case: ReadyCase, plan: StoredPlan) -> Decision | StoredProfile:
    """Activates the sweep, waits for it, and makes the profile once every clock is measured; one that ends with too
    little is made once more."""
    if plan.spec.activate_at is None:
        return Decision(_tell(case, plan.spec), write_plan=case.activated(plan))
    assert plan.spec.sweep is not None
    measured = coverage(case.gang.ranks, plan.spec.sweep)
    if not measured.complete and not is_over(plan.spec, case.gang.ranks):
        return Decision(_tell(case, plan.spec))
    if measured.fewest < LEAST_CLOCKS and plan.inputs == _FIRST:
        return begin(case, _AGAIN)
    if measured.fewest < LEAST_CLOCKS:
        message = (
            f"Two sweeps are over, but a rank has measured only {measured.fewest} clocks (0: none at default clocks); "
            f"at least {LEAST_CLOCKS} are needed. Iterations are too short for the energy counter, or agents were "
            "started anew meanwhile: raise spec.profiling.iterationsPerClock, which begins anew."
        )
        return case.refuse(Refusal.SWEEP_INCOMPLETE, message, condition="Profiled")
    if not case.timed:
        return case.wait_for_timing()
    delays = measure_delays(case.gang, case.topology)
    spec = build_profile(
        case.gang,
        case.topology,
        plan.spec.sweep.clocks_mhz,
        delays,
        job=case.job.name,
        noise_s=iteration_noise_s(plan.spec, case.gang.ranks),
    )
    name = _profile_name(case.job.name, case.topology)
    old = next((one for one in case.seen.profiles if one.name == name), None)
    return StoredProfile(name, spec, case.job.uid, old.version if old else None)


def _tell(case: ReadyCase, spec: JobPlanSpec) -> EnergyPlanStatus:
    assert spec.sweep is not None
    total, block = len(spec.sweep.clocks_mhz), 0
    if spec.activate_at is None:
        message = (
            f"About to measure the work at several clocks, in {total} blocks of iterations; {case.unready(spec.hash)}."
        )
    else:
        at = min(rank.iteration for rank in case.gang.ranks)
        block = max(0, min(total, (at - spec.activate_at) // spec.sweep.iterations_per_block + 1))
        message = (
            f"Measuring the work at several clocks: block {block} of {total}, {spec.sweep.iterations_per_block} "
            "iterations each."
            if block
            else f"The sweep of clocks begins at iteration {spec.activate_at}; the job is at {at}."
        )
    case.story.tell("Profiled", False, "Sweeping", message)
    return case.story.end(Phase.PROFILING, message, progress=f"{block}/{total} blocks")


def _profile_name(job: str, topology: Topology) -> str:
    digest = hashlib.sha256(json.dumps(topology.to_api(), sort_keys=True).encode()).hexdigest()[:8]
    return f"{job[:244]}-{digest}"
