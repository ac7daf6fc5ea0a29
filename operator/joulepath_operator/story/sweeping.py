"""The story's second chapter: the sweep that profiles a running job, round by round, until there is a profile.

Each round is a JobPlan of its own. Between two, at default clocks, the planner says how well the frontier is known by
then and which clocks tell most of what isn't. What was swept before stands in the JobPlan: nothing is remembered. What
an agent that is started anew forgets meanwhile is swept once more first.

Where an earlier run has left a profile, the first round is a short one that checks it (`reuse`). As far as it holds,
its points stand in for what isn't measured; else the sweep goes on as if it weren't there.

Where a plan may have a clock for each instruction, a last round tries what switches cost by themselves.
"""

from __future__ import annotations

import hashlib
import json
from itertools import takewhile
from math import floor, isfinite
from statistics import fmean
from typing import Final

from joulepath_crds import (
    EarlierRounds,
    EnergyPlanStatus,
    EnergyProfileSpec,
    Granularity,
    JobPlanSpec,
    Origin,
    Phase,
    Purpose,
    Reuse,
    Sweep,
    Topology,
)
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import Decision, StoredPlan, StoredProfile
from joulepath_operator.facts.refusals import Refusal
from joulepath_operator.facts.request import Answer, Delays, SurveyRequest, SurveyResult
from joulepath_operator.figures.clocks import (
    CLOCKS_A_ROUND,
    FIRST_CLOCKS,
    KNOWN,
    LEAST_CLOCKS,
    choose_clocks,
    iterations,
    make_sweep,
    next_sweep,
    swept,
)
from joulepath_operator.figures.coverage import coverage, is_over, lost_mhz
from joulepath_operator.figures.order import labels
from joulepath_operator.figures.profile import build_profile, default_energy_j, iteration_noise_s, with_delays
from joulepath_operator.figures.savings import figure
from joulepath_operator.figures.switching import TRIAL_BLOCKS, is_tried, neighbours_mhz, switching_cost, trial
from joulepath_operator.figures.timing.delays import some_pipelines
from joulepath_operator.story import reuse, setbacks
from joulepath_operator.story.case import ReadyCase

__all__ = ["begin", "go_on", "interrupted", "survey_request"]

_FIRST: Final = "sweep"
_AGAIN: Final = "sweep once more"
"""The inputs of a sweep's JobPlan: an agent that was started anew in the middle has lost what it had measured. If that
was so both times, as while all agents are upgraded, there is a pause before a third one, the last."""
_UNTOLD_KIND: Final = "PyTorchJob"
_MOST_BLOCKS: Final = 400
"""Of all rounds, as the contract has them."""
_SAME_MHZ: Final = 15
"""By as little, a step of GPUs' clocks, a clock isn't too low: a round may have begun where GPUs settled otherwise."""
_LEAST_LAGS: Final = 2
"""How many lags an instruction lasts on average where it may have a clock of its own: shorter ones share theirs."""


def begin(case: ReadyCase, inputs: str = _FIRST, lost: int = 0) -> Decision:
    """Sends the first round to the nodes. lost: iterations of sweeps that told nothing, which count on."""
    if (pause := setbacks.pause(case, setbacks.PROFILING)) is not None:
        return pause
    if setbacks.tries(case, setbacks.PROFILING):
        inputs = _AGAIN
    profiling, default = case.seen.spec.profiling, case.gang.default_clock_mhz
    clocks = _first_clocks(case, min(FIRST_CLOCKS, profiling.clocks))
    if len(clocks) < LEAST_CLOCKS:
        message = (
            f"The GPUs have {len(clocks)} clocks in common that profiling may hold, from {default} MHz down; at least "
            f"{LEAST_CLOCKS} are needed to choose from. Check supportedClocksMHz in kubectl get nodereports -o yaml, "
            "and spec.profiling.maxSlowdownPercent, which bounds how low clocks may be."
        )
        message += f" {case.bounds}" if case.bounds else ""
        return case.refuse(Refusal.TOO_FEW_CLOCKS, message, condition="Profiled")
    sweep = make_sweep(clocks, profiling.iterations_per_clock, case.job.uid, again=inputs == _AGAIN)
    if lost:
        sweep = sweep.model_copy(update={"earlier": EarlierRounds(clocks_mhz=(), iterations=lost)})
    if inputs == _FIRST:
        origin, blocks = reuse.begin_check(case)
        sweep = sweep.model_copy(update={"clocks_mhz": blocks or sweep.clocks_mhz, "origin": origin})
    spec = JobPlanSpec(
        energy_plan=case.seen.name,
        job=case.job.name,
        job_uid=case.job.uid,
        attempt=case.gang.attempt,
        purpose=Purpose.SWEEP,
        hash="",
        sweep=sweep,
        default_clock_mhz=default,
        control_iteration_time_s=case.gang.control_time_s,
    )
    plan = case.new_plan(spec, inputs)
    return Decision(_tell(case, plan.spec), write_plan=plan)


def go_on(case: ReadyCase, plan: StoredPlan) -> Decision | StoredProfile:
    """Activates a round, waits for it, and begins the next one, or makes the profile once enough is known; a sweep that
    ends with too little is made once more, and one that holds clocks that are too low by now begins anew."""
    assert plan.spec.sweep is not None
    if not case.unchanged and _is_too_low(case, plan.spec, plan.spec.sweep):
        return begin(case, _AGAIN if plan.inputs.startswith(_AGAIN) else _FIRST, _run(case, plan.spec, plan.spec.sweep))
    if plan.spec.activate_at is None:
        return Decision(_tell(case, plan.spec), write_plan=case.activated(plan))
    measured = coverage(case.gang.ranks, plan.spec.sweep)
    is_whole = measured.complete and is_tried(plan.spec, case.gang.ranks)
    if not is_whole and not is_over(plan.spec, case.gang.ranks):
        return Decision(_tell(case, plan.spec))
    if measured.fewest < LEAST_CLOCKS:
        return _on_loss(case, plan, plan.spec.sweep, measured.fewest)
    if not case.timed:
        return case.wait_for_timing()
    return _after_round(case, plan, plan.spec.sweep)


def _is_too_low(case: ReadyCase, spec: JobPlanSpec, sweep: Sweep) -> bool:
    """Whether a round holds clocks that profiling may hold no more, by the default clock with which it began."""
    lowest_mhz = spec.default_clock_mhz / (1 + case.profiling_slowdown) - _SAME_MHZ
    return any(0 < clock < lowest_mhz for clock in (*sweep.clocks_mhz, *sweep.to_and_fro_mhz))


def interrupted(case: ReadyCase, plan: StoredPlan) -> StoredPlan | None:
    """The round that a pause cuts off, to begin anew after it, since what it missed no agent has lost; the iterations
    that it had count on. None where none is under way."""
    spec = plan.spec
    if spec.sweep is None or spec.activate_at is None or is_over(spec, case.gang.ranks):
        return None
    if coverage(case.gang.ranks, spec.sweep).complete:
        return None
    earlier = spec.sweep.earlier or EarlierRounds(clocks_mhz=(), iterations=0)
    counted = earlier.model_copy(update={"iterations": _run(case, spec, spec.sweep)})
    sweep = spec.sweep.model_copy(update={"earlier": counted})
    return case.new_plan(spec.model_copy(update={"hash": "", "sweep": sweep, "activate_at": None}), plan.inputs)


def _run(case: ReadyCase, spec: JobPlanSpec, sweep: Sweep) -> int:
    """How many iterations a sweep has had by now, those of its rounds before among them."""
    earlier = sweep.earlier.iterations if sweep.earlier else 0
    if spec.activate_at is None:
        return earlier
    begun = max(rank.iteration for rank in case.gang.ranks) - spec.activate_at
    return earlier + min(len(sweep.clocks_mhz) * sweep.iterations_per_block, max(0, begun))


def _on_loss(case: ReadyCase, plan: StoredPlan, sweep: Sweep, fewest: int) -> Decision:
    """Another sweep, at once and then after a pause. Where the user bounds joules it is one at most, as what was lost
    is forgotten in a pause, and none where they are unknown or would be too many."""
    is_first, most_j = not plan.inputs.startswith(_AGAIN), case.seen.spec.profiling.max_energy_j
    needed_j = default_energy_j(case.gang.ranks) * (iterations(sweep) + _first_round(case))
    if is_first and (most_j is None or (fewest > 0 and needed_j <= most_j)):
        return begin(case, _AGAIN, iterations(sweep))
    message = (
        f"The sweep is over{'' if is_first else ', made once more'}, but a rank has measured only {fewest} clocks (0: "
        f"none at default clocks); at least {LEAST_CLOCKS} are needed. Iterations are too short for the energy "
        "counter, or agents were started anew meanwhile: raise spec.profiling.iterationsPerClock, which begins anew."
    )
    if said := next((rank for rank in case.gang.ranks if rank.reason), None):
        message += f" The agent of rank {said.rank} (pod {said.pod}) says: {said.reason}."
    if most_j is None:
        return setbacks.on_setback(case, Refusal.SWEEP_INCOMPLETE, message)
    message += f" No further one is made within spec.profiling.maxEnergyJoules, {most_j:g}."
    return case.refuse(Refusal.SWEEP_INCOMPLETE, message, condition="Profiled")


def _first_clocks(case: ReadyCase, count: int) -> tuple[int, ...]:
    """So many clocks that profiling may hold, to begin with."""
    gang = case.gang
    return choose_clocks(gang.supported_clocks_mhz(), gang.default_clock_mhz, count, case.profiling_slowdown)


def _first_round(case: ReadyCase) -> int:
    """How many iterations a first round has at most."""
    profiling = case.seen.spec.profiling
    return (2 * min(FIRST_CLOCKS, profiling.clocks) - 1) * (profiling.iterations_per_clock + 1)


def _after_round(case: ReadyCase, plan: StoredPlan, sweep: Sweep) -> Decision | StoredProfile:
    inputs, asked = f"survey {plan.spec.hash}", case.seen.asked
    if isinstance(asked, SurveyRequest) and asked.inputs == inputs:
        if case.seen.planned is None:
            return Decision(_tell(case, plan.spec), ask_planner=asked)
        return _surveyed(case, plan, asked, case.seen.planned)
    spec = _measured(case, plan, sweep)
    blocks = _blocks_left(case, sweep, spec)
    if lost := lost_mhz(case.gang.ranks, sweep)[: max(0, blocks)]:
        return _begin_next(case, plan, _following(sweep, lost, spec))
    settled, more = reuse.settle(case, sweep.origin, spec), _clocks_left(case, sweep, blocks)
    if settled.origin != sweep.origin and (anew := _without_earlier(case, sweep, settled.origin, more, spec)):
        return _begin_next(case, plan, anew)
    spec = settled.profile.model_copy(update={"origin": settled.origin})
    count = 0 if settled.is_enough else more
    request = survey_request(inputs, case.gang, case.topology, spec, sweep, count)
    return Decision(_tell(case, plan.spec), ask_planner=request)


def _measured(case: ReadyCase, plan: StoredPlan, sweep: Sweep) -> EnergyProfileSpec:
    noise_s = (sweep.earlier.noise_s if sweep.earlier else 0.0) or iteration_noise_s(plan.spec, case.gang.ranks)
    spec = build_profile(case.gang, case.topology, set(swept(sweep)), Delays(), job=case.job.name, noise_s=noise_s)
    known = sweep.earlier.switching if sweep.earlier else None
    return spec.model_copy(update={"switching": known or switching_cost(plan.spec, case.gang.ranks)})


def _following(sweep: Sweep, clocks_mhz: tuple[int, ...], spec: EnergyProfileSpec) -> Sweep:
    """The next round, which is told what the profile so far knows beside its points."""
    return next_sweep(sweep, clocks_mhz, spec.iteration_time_noise_s, spec.switching)


def _clocks_left(case: ReadyCase, sweep: Sweep, blocks: int) -> int:
    """How many clocks the next round may have."""
    return max(0, min(CLOCKS_A_ROUND, case.seen.spec.profiling.clocks - len({0, *swept(sweep)}), blocks))


def _surveyed(case: ReadyCase, plan: StoredPlan, asked: SurveyRequest, answer: Answer) -> Decision | StoredProfile:
    """The next round, or the profile; also where nobody knows how well it is known, as the planner took too long."""
    sweep, spec = plan.spec.sweep, asked.profile
    assert sweep is not None
    if isinstance(answer, SurveyResult):
        if answer.uncertainty > KNOWN and (clocks := answer.tells_most_mhz[: asked.count]):
            return _begin_next(case, plan, _following(sweep, clocks, spec))
        if not isfinite(answer.uncertainty) and sweep.origin is not None and spec.origin != sweep.origin:
            spec = _measured(case, plan, sweep)
            origin = reuse.refused(sweep.origin.profile, "nothing can be planned on it")
            more = _clocks_left(case, sweep, _blocks_left(case, sweep, spec))
            if anew := _without_earlier(case, sweep, origin, more, spec):
                return _begin_next(case, plan, anew)
            spec = spec.model_copy(update={"origin": origin})
        spec = with_delays(spec, answer.delays)
        if isfinite(answer.uncertainty) and (spec.frontier_uncertainty is None or answer.uncertainty > KNOWN):
            spec = spec.model_copy(update={"frontier_uncertainty": figure(answer.uncertainty)})
    if (last := _trial(case, sweep, spec)) is not None:
        return _begin_next(case, plan, last)
    if setbacks.tries(case, setbacks.PROFILING):
        case.story.note(setback=None)
    name = _profile_name(case)
    old = next((one for one in case.seen.profiles if one.name == name), None)
    return StoredProfile(name, spec, case.job.uid, old.version if old else None)


def _trial(case: ReadyCase, sweep: Sweep, spec: EnergyProfileSpec) -> Sweep | None:
    """The round that tries what switches cost, where the choice of granularity may rest on that: once."""
    tried = spec.switching is not None or sweep.to_and_fro_mhz
    if tried or case.seen.spec.granularity is not Granularity.AUTO or case.topology.stages == 1 or spec.lag is None:
        return None
    lasts_s = fmean(
        max(kind.points, key=lambda point: point.clock_mhz).time_s
        for stage in spec.stages
        for kind in stage.kinds
        if kind.points
    )
    if lasts_s < _LEAST_LAGS * spec.lag.up_p95_s or _blocks_left(case, sweep, spec) < TRIAL_BLOCKS:
        return None
    two = neighbours_mhz(case.gang.supported_clocks_mhz(), case.gang.default_clock_mhz, case.lowest_mhz)
    return two and trial(_following(sweep, two, spec), two, case.job.uid)


def _without_earlier(
    case: ReadyCase, sweep: Sweep, origin: Origin | None, count: int, spec: EnergyProfileSpec
) -> Sweep | None:
    """The round with which a sweep goes on once an earlier profile has turned out not to hold: what a first round has,
    but for what the check has measured; None where it does hold, or no more may be measured."""
    if origin is None or origin.reuse is not Reuse.REFUSED:
        return None
    clocks = _first_clocks(case, FIRST_CLOCKS)
    lower = [clock for clock in clocks[1:] if clock not in swept(sweep)][: max(0, count)]
    blocks = make_sweep((*clocks[:1], *lower), 1, case.job.uid).clocks_mhz
    following = _following(sweep, blocks, spec).model_copy(update={"origin": origin})
    return following if lower else None


def _blocks_left(case: ReadyCase, sweep: Sweep, spec: EnergyProfileSpec) -> int:
    """How many blocks the next round may have, by the joules that the user allows."""
    profiling, length, room = case.seen.spec.profiling, sweep.iterations_per_block, _MOST_BLOCKS - len(swept(sweep))
    if profiling.max_energy_j is None or spec.energy_per_iteration_j <= 0:
        return room
    allowed = profiling.max_energy_j / (spec.energy_per_iteration_j * case.topology.data_parallel)
    return min(floor((allowed - iterations(sweep)) / length), room)


def survey_request(
    inputs: str, gang: Gang, topology: Topology, spec: EnergyProfileSpec, sweep: Sweep, count: int
) -> SurveyRequest:
    """What the planner is asked between two rounds and after the last: clocks between those known, for the next."""
    known, supported = set(swept(sweep)), gang.supported_clocks_mhz()
    lowest = min(point.clock_mhz for stage in spec.stages for kind in stage.kinds for point in kind.points)
    newest, before = sweep.clocks_mhz, sweep.earlier.clocks_mhz if sweep.earlier else ()
    if sweep.to_and_fro_mhz:  # tells of switches, and next to nothing of the frontier
        newest = tuple(takewhile(bool, reversed(before)))[:CLOCKS_A_ROUND]
    is_predicted = before or (sweep.origin and sweep.origin.reuse is Reuse.CHECKED)
    between = (clock for clock in supported if lowest < clock < spec.default_clock_mhz and clock not in known)
    return SurveyRequest(
        inputs=inputs,
        profile=spec,
        orders=tuple(labels(rank) for rank in gang.pipeline()),
        iterations=some_pipelines(gang, topology),
        supported_clocks_mhz=supported,
        newest_mhz=newest if is_predicted else (),
        candidates_mhz=tuple(between) if count else (),
        count=count,
    )


def _begin_next(case: ReadyCase, plan: StoredPlan, sweep: Sweep) -> Decision:
    before = plan.spec
    spec = before.model_copy(
        update={
            "hash": "",
            "sweep": sweep,
            "activate_at": None,
            "default_clock_mhz": case.gang.default_clock_mhz,
            "control_iteration_time_s": case.gang.control_time_s,
        }
    )
    following = case.new_plan(spec, f"{plan.inputs}, after {before.hash}")
    return Decision(_tell(case, following.spec), write_plan=following)


def _tell(case: ReadyCase, spec: JobPlanSpec) -> EnergyPlanStatus:
    assert spec.sweep is not None
    length, earlier = spec.sweep.iterations_per_block, len(spec.sweep.earlier.clocks_mhz) if spec.sweep.earlier else 0
    total = earlier + len(spec.sweep.clocks_mhz)
    block, at = earlier, min(rank.iteration for rank in case.gang.ranks)
    if spec.activate_at is None:
        message = (
            f"About to measure the work at several clocks, in {total} blocks of iterations; {case.unready(spec.hash)}."
        )
        if earlier:
            message = (
                f"{earlier} blocks of iterations are measured, and the frontier isn't known to {KNOWN:.0%} yet; about "
                f"to measure {total - earlier} more; {case.unready(spec.hash)}."
            )
        if spec.sweep.to_and_fro_mhz:
            message = (
                f"{earlier} blocks of iterations are measured; about to try what switches of clock cost, in "
                f"{total - earlier} more; {case.unready(spec.hash)}."
            )
    else:
        block += max(0, (at - spec.activate_at) // length + 1)
        message = (
            f"Measuring the work at several clocks: block {min(block, total)} of {total}, {length} iterations each."
        )
        if block > total:
            message = f"{total} blocks of iterations are measured; finding out how well the frontier is known."
        elif block == earlier:
            message = f"The sweep of clocks goes on at iteration {spec.activate_at}; the job is at {at}."
    block = min(block, total)
    message = f"{message} {reuse.in_words(spec.sweep.origin)}".strip()
    case.story.tell("Profiled", False, "Sweeping", message)
    return case.story.end(Phase.PROFILING, message, progress=f"{block}/{total} blocks")


def _profile_name(case: ReadyCase) -> str:
    """Jobs of several kinds may have one name, at the same time; those of PyTorchJobs never told their kind."""
    told = case.topology.to_api() | ({} if case.job_kind == _UNTOLD_KIND else {"kind": case.job_kind})
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
    return f"{case.job.name[:244]}-{digest}"
