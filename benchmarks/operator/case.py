"""One case: so many nodes, jobs and EnergyPlans, from the beginning to a steady state, or until its time is over."""

from __future__ import annotations

import os
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.operator.look import look_cpu_s
from simulated_nodes.job import GPUS_PER_NODE, Job
from simulated_nodes.readings import Reading
from simulated_nodes.watching import Seen, Watch
from simulated_nodes.world import Told, World

__all__ = ["Case", "run"]

_LOOK_S: Final = 1.0
_SAY_S: Final = 5.0
_RESTART_S: Final = 10.0
"""The kubelet's first pause before it starts a container anew."""
_SETTLES_S: Final = 10.0
_OVER: Final = frozenset({"Active", "Idle", "Refused", "Completed"})
_UNSEEN: Final = "Unseen"
_STORED: Final = "/registry/joulepath.dev/"
_LONGEST_MESSAGE: Final = 240


@dataclass(frozen=True, slots=True)
class Case:
    """`jobs` of `nodes` each, and `idle` EnergyPlans without one."""

    scenario: str
    size: int
    nodes: int = 0
    jobs: int = 0
    idle: int = 0
    stages: int = 8
    microbatches: int = 12
    tensor_parallel: int = 8


def run(case: Case, limit_s: float, steady_s: float) -> dict[str, Any]:
    """What was reached and what it took. Ends after both times, whatever was reached."""
    with World.begun() as world:
        tokens = world.population.nodes(case.jobs * case.nodes)
        world.start_operator()
        plans, job_plans = world.watch("energyplans"), world.watch("jobplans")
        names = [f"job-{number}" for number in range(case.jobs)] + [f"idle-{number}" for number in range(case.idle)]
        begun, begun_s = world.reading(), time.monotonic()
        world.population.energy_plans(names)
        jobs = [_job(case, world, list(tokens), number) for number in range(case.jobs)]
        if jobs:
            begun_s = world.start_nodes(tokens, jobs, case.stages, case.microbatches)
        loads = list(_wait(case, world, plans, jobs, begun_s + limit_s))
        whole = world.reading()
        time.sleep(_SETTLES_S)
        before = world.reading()
        time.sleep(steady_s)
        after, told = world.reading(), world.told()
        sizes = list(world.place.sizes(_STORED))
        return {
            "scenario": case.scenario,
            "size": case.size,
            "simulated_nodes": len(tokens),
            "jobs": case.jobs,
            "ranks": GPUS_PER_NODE * len(tokens),
            "energy_plans": len(names),
            "pipeline": f"{case.stages}x{case.microbatches}",
            "reached": _reached(case, plans, jobs, told, begun_s),
            "operator_starts": world.operator_starts,
            "on_the_way": _taken(begun, whole),
            "delivery": _delivery(job_plans.seen, jobs, told),
            "steady": _taken(before, after) | _calls(told, before, after, len(tokens)),
            "largest_bytes": _largest(sizes),
            "peak_mib": {name: round(mib, 1) for name, mib in after.peak_mib.items()},
            "look_cpu_s": look_cpu_s(world.place, ("team", names[0])),
            "load": {
                "cores": os.cpu_count(),
                "processes_that_run": round(statistics.fmean(loads), 1),
                "nodes_late_s_at_most": round(told.late_s, 1),
            },
        }


def _job(case: Case, world: World, nodes: list[str], number: int) -> Job:
    own = tuple(nodes[number * case.nodes : (number + 1) * case.nodes])
    shape = {"stages": case.stages, "microbatches": case.microbatches, "tensor_parallel": case.tensor_parallel}
    return world.population.job(f"job-{number}", own, **shape)


def _wait(case: Case, world: World, plans: Watch, jobs: list[Job], until_s: float) -> Iterator[float]:
    """Until all is over or nothing more may be waited for; the machine's load meanwhile."""
    said, said_s, mended_s = "", 0.0, time.monotonic()
    while True:
        yield os.getloadavg()[0]
        phases = Counter(map(_phase, plans.newest().values()))
        applied = _applied(world.told(), plans, jobs)
        line = f"{dict(phases)}, {applied} nodes run their plan"
        if line != said and time.monotonic() - said_s > _SAY_S:
            said, said_s = line, time.monotonic()
            print(f"  {until_s - said_s:5.0f} s left: {line}", flush=True)
        over = sum(phases[phase] for phase in _OVER) == case.jobs and applied >= phases["Active"] * case.nodes
        told = sum(phases.values()) - phases[_UNSEEN] == case.jobs + case.idle
        if (over and told) or time.monotonic() > until_s:
            return
        if time.monotonic() - mended_s > _RESTART_S:  # an operator that can't list all when it begins has ended
            mended_s = time.monotonic()
            world.start_operator()
        time.sleep(_LOOK_S)


def _status(seen: Seen) -> Mapping[str, Any]:
    found: Mapping[str, Any] = seen.body.get("status") or {}
    return found


def _phase(seen: Seen) -> str:
    """The CRD gives one to an EnergyPlan that no operator has looked at."""
    status = _status(seen)
    return str(status["phase"]) if status.get("conditions") else _UNSEEN


def _applied(told: Told, plans: Watch, jobs: list[Job]) -> int:
    """Nodes on which the plan that is in force is applied."""
    newest = plans.newest()
    hashes = [(_status(newest[job.name]).get("plan") or {}).get("hash", "") for job in jobs if job.name in newest]
    return sum(len(told.first_s.get(("applied", one), {})) for one in hashes)


def _reached(case: Case, plans: Watch, jobs: list[Job], told: Told, begun_s: float) -> dict[str, Any]:
    """Phases, when the last plan came to each, and what is told of the first that isn't where it should be."""
    newest = plans.newest()
    last_s: dict[str, float] = {}
    for seen in plans.seen:
        last_s[_phase(seen)] = round(seen.at_s - begun_s, 1)
        if "topology" in _status(seen):
            last_s.setdefault("all ranks seen", round(seen.at_s - begun_s, 1))
    wanted = "Active" if case.jobs else "Pending"
    stuck = next((one for one in newest.values() if _phase(one) != wanted), None)
    missing = case.jobs + case.idle - len(newest)
    why = f"{missing} EnergyPlans aren't told of" if missing else None
    return {
        "phases": dict(Counter(map(_phase, newest.values()))),
        "last_came_after_s": last_s,
        "nodes_with_plan_applied": _applied(told, plans, jobs),
        "not_reached": str(_status(stuck).get("message"))[:_LONGEST_MESSAGE] if stuck else why,
    }


def _taken(before: Reading, after: Reading) -> dict[str, Any]:
    """Of each process, CPU seconds a second; the operator's children are the planner."""
    rejected = after.requests_since(before, "apiserver_flowcontrol_rejected_requests_total")
    requests = after.requests_since(before, "apiserver_request_total")
    children_s = max(0.0, after.children_cpu_s["operator"] - before.children_cpu_s["operator"])
    return {
        "seconds": round(after.at_s - before.at_s, 1),
        "cores": {name: round(after.cores_since(before, name), 4) for name in before.cpu_s},
        "planner_cpu_s": round(children_s, 1),
        "requests": round(sum(requests.values())) if before.requests and after.requests else None,
        "requests_rejected": rejected if before.requests and after.requests else None,
        "watch_bytes": after.requests_since(before, "apiserver_watch_events_sizes_sum"),
    }


def _calls(told: Told, before: Reading, after: Reading, nodes: int) -> dict[str, Any]:
    if not nodes:
        return {}
    calls, minutes = told.calls(before.at_s, after.at_s), (after.at_s - before.at_s) / 60
    each = {name: round(number / nodes / minutes, 3) for name, number in sorted(calls.items())}
    total = sum(number for name, number in each.items() if name.endswith(" calls"))
    return {"calls_a_node_and_minute": round(total, 2), "by_call_a_node_and_minute": each}


def _delivery(seen: tuple[Seen, ...], jobs: list[Job], told: Told) -> dict[str, Any] | None:
    """From when each job's first plan is in the API server to when it is applied on each of its nodes."""
    staged_s, applied_s = list[float](), list[float]()
    begin_s, end_s, wanted_bytes, missing = list[float](), list[float](), 0, 0
    for job in jobs:
        plan = next((one for one in seen if _is_plan_of(one, job)), None)
        if plan is None:
            continue
        staged, applied = (told.first_s.get((what, plan.body["spec"]["hash"]), {}) for what in ("staged", "applied"))
        missing += len(job.nodes) - len(applied)
        staged_s += [at_s - plan.at_s for at_s in staged.values()]
        applied_s += [at_s - plan.at_s for at_s in applied.values()]
        begin_s.append(plan.at_s)
        end_s += list(applied.values())
        wanted_bytes += plan.size * len(job.nodes)
    if not applied_s:
        return None
    calls = told.calls(min(begin_s), max(end_s) + 1)
    got = sum(number for name, number in calls.items() if "jobplans" in name and name.endswith(" got"))
    return {
        "plans": len(begin_s),
        "nodes": len(applied_s),
        "nodes_missing": missing,
        "ready_to_staged_s": {"p50": _share(staged_s, 0.5), "p99": _share(staged_s, 0.99)},
        "ready_to_applied_s": {"p50": _share(applied_s, 0.5), "p99": _share(applied_s, 0.99)},
        "bytes_of_plans_by_nodes": wanted_bytes,
        "bytes_got": got,
        "bytes_ratio": round(got / wanted_bytes, 2),
    }


def _is_plan_of(seen: Seen, job: Job) -> bool:
    spec = seen.body["spec"]
    return bool(spec["jobUID"] == job.uid and spec["purpose"] == "Enforce")


def _share(values: list[float], share: float) -> float:
    return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 2)


def _largest(sizes: list[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for key, size in sizes:
        kind = key.removeprefix(_STORED).partition("/")[0]
        found[kind] = max(size, found.get(kind, 0))
    return found
