"""Single decisions: why a plan waits, is refused or ends, and what the status says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from joulepath_crds import JOB_NAMES, EnergyPlanSpec, JobName, Phase
from joulepath_operator.facts.gang import Gang
from joulepath_operator.facts.observation import NodeJob
from joulepath_operator.figures.activation import activation
from joulepath_operator.story.decide import decide

NewWorld = Callable[..., Any]


def spec(**changes: Any) -> EnergyPlanSpec:
    return EnergyPlanSpec.from_api({"job": {"name": "gpt3"}, **changes})


def injected(world: Any) -> tuple[str, str, str]:
    world.settle()
    condition = world.condition("Injected")
    return condition.status, condition.reason, condition.message


def test_no_job_yet(new_world: NewWorld) -> None:
    world = new_world()
    world.job = None
    status, reason, message = injected(world)
    assert (status, reason) == ("False", "NoJob")
    assert "gpt3" in message
    assert "joulepath.dev/energy-plan: plan" in message
    assert world.status.phase == "Pending"


def test_what_is_not_reached_yet_says_what_comes_first(new_world: NewWorld) -> None:
    world = new_world()
    world.job = None
    world.settle()
    ahead = [one for one in world.status.conditions if one.status == "Unknown"]
    assert [one.type for one in ahead] == ["Profiled", "Planned", "Active"]
    assert all(one.message.startswith("Comes once") for one in ahead)


def test_a_job_without_annotation_is_told_which_to_add(new_world: NewWorld) -> None:
    world = new_world()
    world.job = replace(world.job, annotation=None)
    _, reason, message = injected(world)
    assert reason == "NotAnnotated"
    assert "joulepath.dev/energy-plan: plan" in message
    assert "kubectl" in message


def test_a_job_annotated_for_another_plan_is_refused(new_world: NewWorld) -> None:
    world = new_world()
    world.job = replace(world.job, annotation="other")
    _, reason, message = injected(world)
    assert reason == "AnnotationMismatch"
    assert "'other'" in message
    assert world.status.phase == "Refused"


@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"job": {"name": "gpt3", "kind": "TrainJob"}}, "UnsupportedKind", "spec.job"),
        ({"measurement": {"pairs": 129}}, "InvalidSpec", "spec.measurement.pairs is 129"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence(
    new_world: NewWorld, changes: dict[str, Any], reason: str, field: str
) -> None:
    world = new_world(spec(**changes))
    world.settle()
    assert world.status.phase == "Refused"
    assert world.condition("Degraded").reason == reason
    assert field in world.status.message


def test_shared_refused_and_mixed_gpus_are_refused(new_world: NewWorld) -> None:
    for change, reason in (
        ({"refused": "MIG is on"}, "GPURefused"),
        ({"model": "Other"}, "MixedGPUs"),
        ({"uuid": "GPU-unknown"}, "UnknownGPU"),
    ):
        world = new_world()
        gpu = world._gpu
        world._gpu = lambda rank, gpu=gpu, change=change: gpu(rank).model_copy(update=change if rank == 2 else {})
        world.settle()
        assert world.status.phase == "Refused"
        assert world.condition("Profiled").reason == reason
    world = new_world()
    rank = world._rank
    world._rank = lambda number: rank(number).model_copy(update={"gpu_uuid": "GPU-0"})
    world.settle()
    assert world.condition("Profiled").reason == "SharedGPU"


@pytest.mark.slow
def test_a_gpu_that_may_be_touched_again_brings_the_plan_back(active: Any) -> None:
    gpu, before = active._gpu, active.plan
    active._gpu = lambda rank: gpu(rank).model_copy(update={"refused": "MIG is on"})
    active.settle()
    assert active.status.phase == "Refused"
    assert active.condition("Active").reason == "Withdrawn"
    assert not active.plans
    active._gpu = gpu
    active.settle()
    assert active.status.phase == "Planned"
    assert active.plan.hash == before.hash


def test_ranks_that_disagree_are_refused(new_world: NewWorld) -> None:
    for change in ({"microbatches": 13}, {"schedule": "GPipe"}, {"stages": (3,)}):
        world = new_world()
        rank = world._rank
        world._rank = lambda number, rank=rank, change=change: rank(number).model_copy(
            update=change if number == 2 else {}
        )
        world.settle()
        assert world.condition("Profiled").reason == "RanksDisagree"


@pytest.mark.slow
def test_a_guard_that_trips_ends_the_plan_until_the_spec_changes_or_the_job_restarts(active: Any) -> None:
    active.refusal = {3: "GuardTripped: the last 5 plan iterations took 4 s, the bound is 3 s"}
    active.settle()
    assert active.status.phase == "Refused"
    assert active.condition("Active").reason == "GuardTripped"
    assert "rank 3" in active.status.message
    assert [active.condition(kind).status for kind in ("Injected", "Profiled", "Planned", "Degraded")] == ["True"] * 4
    assert not active.plans
    active.refusal = {}
    active.run(20)
    assert active.status.phase == "Refused"
    assert not active.plans
    active.spec, active.generation = spec(granularity="phase"), 2
    active.settle()
    assert active.plan.purpose == "Enforce"
    active.refusal = {3: "GuardTripped: again"}
    active.settle()
    active.refusal = {}
    active.restart_job()
    active.settle()
    assert active.status.phase == "Profiling"


@pytest.mark.slow
def test_a_node_that_is_silent_for_a_moment_withdraws_nothing(active: Any) -> None:
    plans = dict(active.plans)
    message = active.status.message
    active.ranks, active.pods = 4, (None, None)
    active.settle()
    assert active.plans == plans
    assert active.status.phase == "Active"
    assert active.condition("Degraded").status == "Unknown", "so a job ends"
    assert active.status.message == message
    active.settle_later()
    assert active.plans == plans
    assert active.condition("Degraded").status == "True"
    assert active.status.message.startswith("Degraded: 4 of 8 ranks report")
    active.ranks = 8
    active.settle()
    assert active.condition("Degraded").status == "False"


def test_ranks_at_default_clocks_are_told_with_their_reason(active: Any) -> None:
    rank = active._rank
    active._rank = lambda number: rank(number).model_copy(
        update={"applied_hash": None, "reason": "MarkersStopped: none for 3 s"} if number == 5 else {}
    )
    active.settle()
    assert active.status.phase == "Active"
    condition = active.condition("Degraded")
    assert condition.reason == "RanksAtDefault"
    assert "MarkersStopped" in condition.message


def test_measured_savings_stay_when_an_agent_forgets_its_blocks(active: Any) -> None:
    measured = active.status.measured
    active._blocks = lambda rank: []
    active.settle()
    assert active.status.measured == measured


def test_transition_times_change_only_with_the_status(active: Any) -> None:
    before = {one.type: (one.status, one.last_transition_time) for one in active.status.conditions}
    active.iteration += 7
    active.settle()
    assert {one.type: (one.status, one.last_transition_time) for one in active.status.conditions} == before
    active.ranks = 4
    active.settle()
    after = {one.type: (one.status, one.last_transition_time) for one in active.status.conditions}
    assert after["Degraded"] != before["Degraded"]
    assert {kind: told for kind, told in after.items() if kind != "Degraded"} == {
        kind: told for kind, told in before.items() if kind != "Degraded"
    }


def test_a_plan_of_an_earlier_run_is_deleted(active: Any) -> None:
    active.restart_job()
    active.ranks = 0
    active.settle()
    assert not active.plans
    assert active.status.phase == "Pending"
    assert active.status.measured is None


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_a_job_that_ends_deletes_the_plan_and_keeps_the_figures(active: Any, end: str) -> None:
    savings = active.status.savings
    active.job = replace(active.job, finished=end)
    active.settle()
    assert active.status.phase == "Completed"
    assert not active.plans
    assert active.status.savings == savings
    assert end.lower() in active.status.message
    kinds = ("Injected", "Profiled", "Planned", "Active", "Degraded")
    assert [active.condition(kind).status for kind in kinds] == ["True", "True", "True", "False", "False"]


def test_ranks_that_leave_at_the_end_do_not_change_the_figures(active: Any) -> None:
    """Those that are there still have measured their own GPUs only."""
    before = active.status.measured
    active.job, active.ranks = replace(active.job, finished="Succeeded"), 4
    active.settle()
    assert active.status.phase == "Completed"
    assert active.status.measured == before


def test_a_suspended_job_has_no_plan(active: Any) -> None:
    active.job = replace(active.job, suspended=True)
    active.settle()
    assert active.status.phase == "Pending"
    assert not active.plans
    assert (active.condition("Injected").reason, active.status.progress) == ("Suspended", "Suspended")


def test_what_was_refused_for_good_is_forgotten_when_the_job_is_suspended(active: Any) -> None:
    """It may be resumed on other nodes."""
    active.refusal = {3: "GuardTripped: the last 5 plan iterations took 4 s, the bound is 3 s"}
    active.settle()
    assert active.status.phase == "Refused"
    running, active.refusal = active.job, {}
    active.job = replace(running, suspended=True)
    active.settle()
    assert active.status.phase == "Pending"
    active.job = running
    active.settle()
    assert active.plan.purpose == "Enforce"


def test_a_job_that_another_has_made_is_told_which_one_to_plan_for(active: Any) -> None:
    active.job = replace(active.job, made_by=JobName(JOB_NAMES[1], "whole", "uid-of-whole"))
    active.settle()
    assert (active.status.phase, active.status.progress) == ("Pending", "MadeByAnotherJob")
    assert "was made by TrainJob whole, so that is the job to plan for" in active.status.message
    assert not active.plans


def test_several_trainings_in_one_job_get_no_plan_and_one_that_is_left_gets_it_again(active: Any) -> None:
    """Their ranks have the same numbers, so that one would get a plan that was made for another."""
    alone = active.nodes
    active.nodes = lambda: (*alone(), *map(_elsewhere, alone()))
    active.settle()
    assert (active.status.phase, active.status.progress) == ("Pending", "SeveralTrainings")
    assert "pods gpt3-worker-0 and another-gpt3-worker-0 of PyTorchJob gpt3 don't train tog" in active.status.message
    assert not active.plans
    active.nodes = alone
    active.settle()
    assert active.status.phase in ("Planned", "Active")
    assert active.plans


def _elsewhere(node: NodeJob) -> NodeJob:
    """The same, of another training of the same job."""
    ranks = [
        rank.model_copy(update={name: f"another-{getattr(rank, name)}" for name in ("pod", "pod_uid", "gpu_uuid")})
        for rank in node.report.ranks
    ]
    gpus = tuple(gpu.model_copy(update={"uuid": f"another-{gpu.uuid}"}) for gpu in node.gpus)
    report = node.report.model_copy(update={"ranks": tuple(ranks)})
    return replace(node, node=f"another-{node.node}", report=report, gpus=gpus)


def test_a_job_that_is_scaled_gets_a_plan_for_what_it_is_then_and_its_profile_is_checked_alone(active: Any) -> None:
    alone = active.nodes

    def twice() -> tuple[NodeJob, ...]:
        return tuple(_scaled(node, 0) for node in alone()) + tuple(_scaled(_elsewhere(node), 1) for node in alone())

    for attempt, (nodes, replicas) in enumerate(((twice, 2), (alone, 1)), 1):
        active.attempt, active.nodes = attempt, nodes
        active.run(40)
        assert active.status.phase == "Active"
        assert active.status.topology.data_parallel == replicas
        assert active.plan.attempt == attempt
    written = [plan for plan in active.writes if plan.attempt]
    assert [plan.purpose for plan in written] == ["Sweep"] * 2 + ["Enforce"] * 4, "checked once, planned for twice"
    assert len({*written[0].sweep.clocks_mhz} - {0}) == 2


def _scaled(node: NodeJob, replica: int) -> NodeJob:
    """One of two replicas."""
    ranks = [
        rank.model_copy(
            update={
                "rank": rank.rank + 8 * replica,
                "coordinates": rank.coordinates.model_copy(update={"data": replica}),
                "data_parallel": 2,
            }
        )
        for rank in node.report.ranks
    ]
    return replace(node, report=node.report.model_copy(update={"world_size": 16, "ranks": tuple(ranks)}))


def test_a_job_that_kueue_has_suspended_is_said_to_wait_in_its_queue(active: Any) -> None:
    active.job = replace(active.job, suspended=True, queue="team-queue")
    active.settle()
    assert (active.status.phase, active.status.progress) == ("Pending", "Queued")
    assert "until Kueue admits it from its queue team-queue" in active.status.message
    assert f"describe workloads -l kueue.x-k8s.io/job-uid={active.job.uid}" in active.status.message
    assert not active.plans


def test_an_activation_leaves_time_for_the_delivery_and_for_old_reports(new_world: NewWorld) -> None:
    nodes = new_world().nodes()
    fresh = Gang.of(nodes)
    stale = Gang.of(replace(node, age_s=30.0) for node in nodes)
    assert fresh is not None
    assert stale is not None
    period = fresh.iteration_time_s
    assert activation(fresh) == 10 + 1 + 2  # 2 s are less than one iteration of 2.9 s
    assert activation(stale) >= 10 + 30 / period + 3


def test_observe_takes_a_plan_out_of_force_before_anything_else(active: Any) -> None:
    active.spec, active.generation = spec(mode="Observe"), 2
    decision = active.decide()
    assert decision.delete_plans == tuple(active.plans)
    active.settle()
    assert not any(clock for stage in active.plan.stages for clock in stage.clocks_mhz)


def test_observe_ends_a_sweep(new_world: NewWorld) -> None:
    world = new_world()
    world.settle()
    assert world.plan.purpose == "Sweep"
    world.spec, world.generation = spec(mode="Observe"), 2
    world.ranks = 4
    world.settle()
    assert not world.plans


def test_a_spec_that_changes_while_ranks_are_silent_withdraws_the_plan(active: Any) -> None:
    active.spec, active.generation, active.ranks = spec(maxSlowdownPercent=1), 2, 4
    active.settle()
    assert not active.plans
    assert active.status.phase == "Pending"


def test_a_plan_that_is_in_force_while_the_next_is_computed_is_told_so(active: Any) -> None:
    active.spec, active.generation = spec(maxSlowdownPercent=5), 2
    decision = active.decide()
    assert decision.ask_planner is not None
    active.status = decision.status
    assert active.status.phase == "Active"
    assert active.condition("Active").status == "True"
    assert "stays in force" in active.status.message


def test_an_agent_that_was_started_anew_leaves_the_phase_as_it_is(active: Any) -> None:
    rank, plans = active._rank, dict(active.plans)
    active._rank = lambda number: rank(number).model_copy(update={"order": () if number == 3 else rank(number).order})
    active.settle()
    assert active.status.phase == "Active"
    assert active.condition("Degraded").reason == "WaitingForIteration"
    assert active.plans == plans
    active._rank = rank
    active.settle()
    assert active.condition("Degraded").status == "False"


def test_a_pipeline_whose_shape_changes_in_mid_run_is_profiled_anew_and_nothing_of_before_stays(active: Any) -> None:
    rank, old = active._rank, active.plan.hash
    assert active.status.measured is not None
    changed: set[int] = set()
    active._rank = lambda number: rank(number).model_copy(
        update={"microbatches": rank(number).microbatches + (number in changed)}
    )
    changed |= {0, 1, 2}
    active.settle()
    assert active.condition("Degraded").reason == "RanksDisagree"
    assert not active.plans
    changed |= set(range(8))
    active.settle()
    assert active.status.phase == "Profiling"
    assert active.condition("Active").status != "True"
    assert active.status.topology.microbatches == 9
    assert (active.status.plan, active.status.predicted, active.status.measured) == (None, None, None)
    assert active.plan.purpose == "Sweep"
    assert active.plan.hash != old
    active.run(150)
    assert {one.spec.topology.microbatches for one in active.profiles.values()} == {8, 9}


def test_a_rank_that_stopped_at_default_clocks_is_told_though_no_iteration_begins(active: Any) -> None:
    rank = active._rank
    why = "MarkersStopped: none for 61.0 s"
    active._rank = lambda number: rank(number).model_copy(
        update={"applied_hash": None, "state": "Staged", "reason": why} if number == 2 else {}
    )
    active.settle()
    assert active.condition("Degraded").reason == "RanksAtDefault"
    assert why in active.status.message


def test_a_framework_that_is_not_as_known_is_told_with_its_version(new_world: NewWorld) -> None:
    world = new_world()
    rank, lacks = world._rank, "torch 2.19.0 isn't as known (there is no X): only iterations of its pipelines are seen"
    world._rank = lambda number: rank(number).model_copy(update={"order": (), "lacks": lacks})
    world.settle()
    assert world.status.phase == "Pending"
    assert f"Of rank 0: {lacks}. Train with a version of docs/frameworks.md" in world.status.message
    assert lacks in world.condition("Profiled").message


def test_why_no_iteration_of_a_rank_is_measured_is_told(new_world: NewWorld) -> None:
    world = new_world()
    rank, why = world._rank, "OverBudget: it tells of iterations of 5000 instructions, up to 4096 are measured"
    world._rank = lambda number: rank(number).model_copy(
        update={"order": (), "reason": why} if number == 3 else {"order": rank(number).order}
    )
    world.settle()
    assert world.status.phase == "Pending"
    assert f"(rank 3: {why})" in world.status.message


def test_a_plan_that_no_rank_runs_is_not_called_active(active: Any) -> None:
    rank = active._rank
    active._rank = lambda number: rank(number).model_copy(update={"applied_hash": None, "reason": "GuardPaused: slow"})
    active.settle()
    assert active.status.phase == "Active"
    assert active.condition("Active").status == "False"
    assert "GuardPaused" in active.status.message
    active._rank = rank
    active.settle()
    assert active.condition("Active").status == "True"
    active.ranks, active.pods = 0, (None, None)
    active.settle()
    assert active.condition("Active").status == "False"
    assert active.plans


def test_a_plan_that_is_refused_before_it_began_is_told_as_withdrawn(new_world: NewWorld) -> None:
    world = new_world()
    world.settle()
    while world.status.phase != "Planned":
        world.run(1, every=1)
    gpu = world._gpu
    world._gpu = lambda rank: gpu(rank).model_copy(update={"refused": "MIG is on"})
    world.settle()
    assert world.status.phase == "Refused"
    assert world.condition("Active").reason == "Withdrawn"


def test_a_rank_that_is_not_ready_is_told_with_its_reason(new_world: NewWorld) -> None:
    world = new_world()
    world.unstaged = {3}
    rank = world._rank
    world._rank = lambda number: rank(number).model_copy(update={"reason": "AttemptMismatch: 1" if number == 3 else ""})
    world.settle()
    assert "7 of 8 ranks are ready (rank 3: AttemptMismatch: 1)" in world.status.message


def test_while_not_all_can_be_read_nothing_is_changed_and_that_is_told(active: Any, new_world: NewWorld) -> None:
    world, why = active.copy(), "The operator may not list and watch energypolicies."
    seen = replace(world.observe(), unreadable=why, generation=2, nodes=())
    decision = decide(seen)
    assert (decision.write_plan, decision.delete_plans) == (None, ())
    assert decision.status.observed_generation == 1, "an edit is seen once all can be read"
    assert decision.status.message == f"Degraded: {why}"
    fresh = decide(replace(new_world().observe(), unreadable=why))
    assert (fresh.status.phase, fresh.status.message, fresh.write_plan) == (Phase.PENDING, why, None)
