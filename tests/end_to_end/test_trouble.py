"""Whatever dies or is cut off: clocks return to default, training goes on, and the plan comes back where it can.

`uneven` trains since the module before; `again` is a second run of the same pipeline.
"""

from __future__ import annotations

import json
import signal
import time

import pytest

from joulepath_crds import Phase, RankState
from real_cluster import NotYetError, until
from tests.end_to_end import jobs, processes
from tests.end_to_end.product import JOBS, PLANS_LIVE_S, RELEASE, SYSTEM, UNEVEN, Product
from tests.end_to_end.watching import Recorder
from virtual_gpus import state

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven")]

RELEASED_S = 30
"""Generous: the promise is seconds, the machine has two busy cores."""
BACK_S = 180
AT_REST_S = 16.0
"""Longer than plans leave GPUs at default clocks: for two control blocks of six iterations, one after the other."""
RUNS = 3
"""Most runs of the same pipeline until the host's pace is that of the first."""


def gpus_of(record: Recorder, job: str, node: str) -> set[str]:
    """The GPUs of a job's ranks on a node."""
    return {rank.gpu_uuid for rank in record.ranks(job, node=node).values()}


def while_locked(release: Product, record: Recorder, job: str, node: str) -> set[str]:
    """Returns at a moment when clocks of a job are locked on a node; those GPUs."""
    gpus, locked = gpus_of(record, job, node), set[str]()

    def look() -> bool:
        locked.update(release.gpus(node).locked() & gpus)
        return bool(locked)

    until(f"locks of {job} on {node}", BACK_S, look, 0.005)
    return locked


def wait_unlocked(release: Product, node: str, gpus: set[str]) -> None:
    """Until all of these GPUs have been at default clocks for longer than a plan ever leaves them there."""
    until(f"default clocks on {node}", RELEASED_S + AT_REST_S, lambda: are_at_rest(release, node, gpus))


def wait_returned(release: Product, node: str, gpus: set[str], since_ns: int) -> None:
    """Until all of these GPUs are default after a moment from which on nobody holds them; a successor may slow them."""
    until(f"default clocks on {node}", RELEASED_S, lambda: gpus <= release.gpus(node).returned(since_ns))


def are_at_rest(release: Product, node: str, gpus: set[str]) -> bool:
    """Whether they are now, and have been for so long."""
    return gpus <= release.gpus(node).at_rest(time.monotonic_ns(), AT_REST_S)


def wait_iterations(record: Recorder, job: str, more: int = 10, *, node: str | None = None) -> None:
    """Until every rank of a job (on a node) has trained on."""
    begun = {number: rank.iteration for number, rank in record.ranks(job, node=node).items()}

    def look() -> None:
        now = {number: rank.iteration for number, rank in record.ranks(job, node=node).items()}
        if not all(now.get(number, 0) >= iteration + more for number, iteration in begun.items()):
            raise NotYetError(f"iterations {begun}, then {now}")

    until(f"{job} trains on", BACK_S, look)


def wait_iterations_of(record: Recorder, job: str, node: str, more: int = 10) -> None:
    """Until the ranks of one node, whose agent is heard, have trained on: with them the others, that they wait for."""
    begun = max(rank.iteration for rank in record.ranks(job, node=node).values())
    until(
        f"{job} trains on",
        BACK_S,
        lambda: min(rank.iteration for rank in record.ranks(job, node=node).values()) >= begun + more,
    )


def has_successor(record: Recorder, node: str) -> bool:
    """Whether an agent of a node has begun without ranks of `uneven`, and has them again."""
    told = [one.body.get("status", {}).get("jobs", ()) for one in record.versions("nodereports", node)]
    there = [any(job["job"] == "uneven" for job in jobs) for jobs in told]
    return there[-1] and False in there[there.index(True) :]


def restarted(release: Product, record: Recorder) -> bool:
    """Whether the pods of `uneven` that there are now report, and none that is gone."""
    uids = {pod["metadata"]["uid"] for pod in jobs.pods(release.cluster, "uneven", count=2)}
    ranks = record.ranks("uneven").values()
    return len(ranks) == 4 and {rank.pod_uid for rank in ranks} == uids


def in_force(release: Product, record: Recorder) -> None:
    """Until a plan is in force for `uneven`; one that the guard has stopped, on two busy cores, is asked for anew.

    So is one of ranks that were started anew: they would wait for the iteration at which their predecessors' began.
    """

    def early() -> bool:
        plan, ranks = record.plan("uneven"), record.ranks("uneven").values()
        return plan is not None and any(rank.iteration + 20 < (plan.activate_at or 0) for rank in ranks)

    ask = jobs.asking_anew(release.cluster, record, "uneven", early)

    def look() -> None:
        ask()
        record.applied("uneven", limit_s=0)

    until("a plan in force", 2 * BACK_S, look, 0.5)


def test_a_node_that_hears_of_a_switch_late_runs_default_clocks_and_joins_at_a_block(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    before = record.plan("uneven")
    pids = [processes.processes(release.pod("agent", node), "joulepath-agent")[0] for node in ("node0", "node1")]
    with processes.cut_off(pids[0]) as first, processes.cut_off(pids[1]) as second:
        first.cut()  # so that the plan can't be activated before the other node is cut off as well
        change = json.dumps({"spec": {"maxSlowdownPercent": 3}})
        release.cluster.kubectl("patch", "energyplan", "uneven", "--namespace", JOBS, "--type=merge", "--patch", change)

        def staged() -> None:
            plan, ranks = record.plan("uneven"), record.ranks("uneven", node="node1").values()
            if plan is None or before is None or plan.hash == before.hash:
                raise NotYetError("no new plan yet")
            if {rank.staged_hash for rank in ranks} != {plan.hash}:
                raise NotYetError(f"{plan.hash} isn't ready on node1")

        until("the new plan ready on node1", BACK_S, staged)
        second.cut()
        first.mend()
        new = record.applied("uneven", 2, node="node0", limit_s=BACK_S)
        gpus = gpus_of(record, "uneven", "node1")
        begun = min(rank.iteration for rank in record.ranks("uneven", node="node0").values())
        while max(rank.iteration for rank in record.ranks("uneven", node="node0").values()) < begun + 6:
            assert not release.gpus("node1").locked() & gpus
            time.sleep(0.02)
        second.mend()
    record.applied("uneven", limit_s=BACK_S)

    def blocks(node: str) -> int:
        told = [b.block for r in record.ranks("uneven", node=node).values() for b in r.blocks if b.hash == new]
        if not told:
            raise NotYetError(f"no block on {node} yet")
        return min(told)

    until("a whole block on node1", BACK_S, lambda: blocks("node1") > blocks("node0"))


def test_a_node_that_stays_cut_off_returns_to_default_clocks_and_is_slowed_again_once_it_hears(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    gpus = while_locked(release, record, "uneven", "node1")
    with processes.cut_off(processes.processes(release.pod("agent", "node1"), "joulepath-agent")[0]) as agent:
        agent.cut()
        began = time.monotonic()
        until("default clocks on node1", 3 * PLANS_LIVE_S, lambda: are_at_rest(release, "node1", gpus))
        assert time.monotonic() - began > PLANS_LIVE_S / 2, "a plan lives on while news of it is young"
        wait_iterations_of(record, "uneven", "node0")
        assert are_at_rest(release, "node1", gpus)
    record.applied("uneven", limit_s=BACK_S)
    while_locked(release, record, "uneven", "node1")


def test_an_agent_that_is_killed_leaves_no_clock_locked(release: Product, record: Recorder) -> None:
    in_force(release, record)
    pod = release.pod("agent", "node0")
    (pid, *_) = processes.processes(pod, "joulepath-agent")
    gpus, left = gpus_of(record, "uneven", "node0"), set[str]()

    def stopped() -> bool:
        processes.kill(pid, signal.SIGSTOP)
        left.update(release.gpus("node0").locked() & gpus)
        if not left:
            processes.kill(pid, signal.SIGCONT)
        return bool(left)

    until("an agent that is stopped while it holds clocks", BACK_S, stopped)
    processes.kill(pid, signal.SIGKILL)
    wait_returned(release, "node0", left, time.monotonic_ns())
    until(
        "another agent process",
        RELEASED_S,
        lambda: any(one != pid for one in processes.processes(pod, "joulepath-agent")),
    )
    said = release.kubectl("logs", pod["metadata"]["name"], "--container", "warden").splitlines()
    reset = "".join(line for line in said if "at default clocks: " in line)
    assert all(uuid in reset for uuid in left)


def test_an_agent_pod_that_is_deleted_by_force_leaves_no_clock_locked(release: Product, record: Recorder) -> None:
    pod = release.pod("agent", "node1")
    name, pids = pod["metadata"]["name"], processes.processes(pod, "joulepath-agent")
    gpus = while_locked(release, record, "uneven", "node1")
    release.kubectl("delete", "pod", name, "--grace-period=0", "--force")
    until("the end of its agent", RELEASED_S, lambda: not any(processes.alive(pid) for pid in pids), 0.01)
    wait_returned(release, "node1", gpus, time.monotonic_ns())
    until("another pod", BACK_S, lambda: release.pod("agent", "node1")["metadata"]["name"] != name)


@pytest.mark.parametrize("down", ["kubelet", "containerd"])
def test_an_agent_that_is_killed_while_nobody_can_start_it_anew_leaves_no_clock_locked(
    release: Product, record: Recorder, down: str
) -> None:
    in_force(release, record)
    daemon = release.cluster.node("node0").pid(down)
    assert daemon is not None
    pod = release.pod("agent", "node0")
    (pid,) = processes.processes(pod, "joulepath-agent")
    processes.kill(daemon, signal.SIGSTOP)
    try:
        gpus = while_locked(release, record, "uneven", "node0")
        processes.kill(pid, signal.SIGKILL)
        wait_unlocked(release, "node0", gpus)
        wait_iterations(record, "uneven", node="node1")
        assert not any(processes.alive(one) for one in processes.processes(pod, "joulepath-agent"))
    finally:
        processes.kill(daemon, signal.SIGCONT)
    until("another agent process", BACK_S, lambda: processes.processes(pod, "joulepath-agent") not in ([], [pid]))


def test_an_agent_and_a_warden_that_are_killed_at_once_leave_no_clock_locked(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    pod, gpus = release.pod("agent", "node1"), while_locked(release, record, "uneven", "node1")
    pids = [pid for part in ("joulepath-agent", "joulepath-warden") for pid in processes.processes(pod, part)]
    assert len(pids) == 2
    for sent in (signal.SIGSTOP, signal.SIGKILL):  # a stopped one can't reset before it is killed
        for pid in pids:
            processes.kill(pid, sent)
    wait_returned(release, "node1", gpus, time.monotonic_ns())
    wait_iterations(record, "uneven", node="node0")


def test_the_training_goes_on_and_the_agents_that_follow_resume_the_plan(release: Product, record: Recorder) -> None:
    until("ranks at the next agents", BACK_S, lambda: all(has_successor(record, node) for node in ("node0", "node1")))
    in_force(release, record)


def test_a_deleted_energyplan_lets_go_of_every_clock_and_the_training_goes_on(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    gpus = {node: while_locked(release, record, "uneven", node) for node in ("node0", "node1")}
    release.cluster.kubectl("delete", "energyplan", "uneven", "--namespace", JOBS, "--timeout=20s")
    for node, ones in gpus.items():
        wait_unlocked(release, node, ones)
    until("no JobPlan", BACK_S, lambda: record.plan("uneven") is None)
    wait_iterations(record, "uneven")
    assert {rank.state for rank in record.ranks("uneven").values()} == {RankState.OBSERVING}
    assert not any(release.gpus(node).locked() & ones for node, ones in gpus.items())


def test_a_rank_that_is_killed_leaves_no_clock_locked_though_its_forked_workers_live(
    release: Product, record: Recorder
) -> None:
    jobs.apply(release.cluster, jobs.energy_plan("uneven"))
    in_force(release, record)
    pod = jobs.pods(release.cluster, "uneven", count=2)[0]
    trainers = processes.processes(pod, "/end-to-end/pipeline.py")
    launchers = [pid for pid in trainers if "torch.distributed.run" in processes.command(pid)]
    ranks = {int(processes.environment(pid)["RANK"]): pid for pid in trainers if processes.parent(pid) in launchers}
    assert sorted(ranks) == [0, 1]
    locked = while_locked(release, record, "uneven", "node0")
    number, gpu = next((n, r.gpu_uuid) for n, r in record.ranks("uneven", node="node0").items() if r.gpu_uuid in locked)
    workers = [pid for pid in trainers if processes.parent(pid) == ranks[number]]
    assert workers
    begun = {number: rank.iteration for number, rank in record.ranks("uneven").items()}
    processes.kill(ranks[number], signal.SIGKILL)
    until("default clocks", RELEASED_S, lambda: gpu in release.gpus("node0").at_rest(time.monotonic_ns(), 0.0))
    assert any(processes.alive(pid) for pid in workers)
    wait_unlocked(release, "node0", {gpu})

    def trains() -> bool:
        now = record.ranks("uneven")
        return sorted(now) == sorted(begun) and all(2 < now[number].iteration < begun[number] for number in begun)

    # A start keeps two cores busy, and makes iterations of the next test's job longer than they were profiled.
    until("the job's next start", BACK_S, trains)


def test_a_second_run_of_the_same_pipeline_uses_the_profile_of_the_first(release: Product, record: Recorder) -> None:
    first = record.status("uneven").profile

    def settled() -> None:
        status = record.status("again")
        if status.phase not in (Phase.ACTIVE, Phase.REFUSED):
            raise NotYetError(f"EnergyPlan again is {status.phase}: {status.message}")

    for _ in range(RUNS):
        jobs.apply(release.cluster, jobs.energy_plan("again"), jobs.training_job("again", first_kernel=UNEVEN))
        until("a plan for again", 2 * BACK_S, settled, 0.2)
        status = record.status("again")
        (profiled,) = [one for one in status.conditions if one.type == "Profiled"]
        for kind in ("pytorchjob", "energyplan"):
            release.cluster.kubectl("delete", kind, "again", "--namespace", JOBS)
        until("no rank of again", BACK_S, lambda: not record.ranks("again"))
        if status.phase is Phase.ACTIVE and profiled.reason == "Reused":
            break
        # On two busy cores its iterations may be of another length than those that were profiled.
        for name in record.living("energyprofiles"):
            if name.startswith("again"):
                release.cluster.kubectl("delete", "energyprofile", name, "--namespace", JOBS)
    assert profiled.reason == "Reused"
    assert f"EnergyProfile {first}, measured in an earlier run" in profiled.message
    phases = {one.body.get("status", {}).get("phase") for one in record.versions("energyplans", "again")}
    assert {"Planned", "Active"} <= phases


def test_a_training_pod_that_is_killed_leaves_no_clock_locked(release: Product, record: Recorder) -> None:
    until("the ranks started anew", BACK_S, lambda: restarted(release, record), 1)
    in_force(release, record)
    worker = jobs.pods(release.cluster, "uneven", count=2)[1]
    gpus = while_locked(release, record, "uneven", "node1")
    release.cluster.kubectl(
        *("delete", "pod", "--namespace", JOBS, worker["metadata"]["name"], "--grace-period=0", "--force")
    )
    wait_unlocked(release, "node1", gpus)


def test_uninstalling_lets_go_of_every_clock_and_the_training_succeeds(release: Product, record: Recorder) -> None:
    until("reports of the new pod", BACK_S, lambda: restarted(release, record), 1)
    in_force(release, record)
    gpus = {node: while_locked(release, record, "uneven", node) for node in ("node0", "node1")}
    step = max(rank.iteration for rank in record.ranks("uneven").values())
    release.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
    for node, ones in gpus.items():
        wait_unlocked(release, node, ones)
    # Every GPU, not only those that were seen locked; and for good: the training runs on.
    every = {node: set(state.uuids(release.gpus(node).path)) for node in gpus}
    assert all(are_at_rest(release, node, ones) for node, ones in every.items())
    for node in gpus:
        journal = release.cluster.node(node).layout.folder / "private/var/lib/joulepath/locked-gpus"
        assert "GPU-" not in journal.read_text(), "nothing is in doubt"
    jobs.stop(release.cluster, "uneven", step + 30)
    jobs.phase(release.cluster, "uneven", "Succeeded", limit_s=120)
    assert not any(release.gpus(node).locked() & ones for node, ones in every.items())
