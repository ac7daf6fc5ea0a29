"""Whatever dies or is cut off: clocks return to default, training goes on, and the plan comes back where it can.

`uneven` trains since the modules before; `again` is a second run of the same pipeline, in its place.
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
from tests.end_to_end.waiting import (
    BACK_S,
    RELEASED_S,
    agent_pod,
    gpus_of,
    in_force,
    report_version,
    wait_at_default,
    wait_iterations,
    wait_resumed,
    wait_returned,
    while_locked,
)
from tests.end_to_end.watching import Recorder
from virtual_gpus import state

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven")]

RUNS = 3
HELD = ("Reused", "Refreshed")
"""Most runs of the same pipeline until the host's pace is that of the first."""


def restarted(release: Product, record: Recorder) -> bool:
    """Whether the pods of `again` that there are now report, and none that is gone."""
    uids = {pod["metadata"]["uid"] for pod in jobs.pods(release.cluster, "again", count=2)}
    ranks = record.ranks("again").values()
    return len(ranks) == 4 and {rank.pod_uid for rank in ranks} == uids


def timed(record: Recorder) -> bool:
    """Whether an iteration at default clocks is known of each rank: another plan may be made without asking it."""
    return all(rank.timeline for rank in record.ranks("uneven").values())


def ready_on_node1(release: Product, record: Recorder, slowdown_percent: int) -> bool:
    """Allows another slowdown, and waits until the plan for it is ready on node1; False if it is refused."""
    before, generation = record.plan("uneven"), record.living("energyplans")["uneven"].body["metadata"]["generation"]
    change = json.dumps({"spec": {"maxSlowdownPercent": slowdown_percent}})
    release.cluster.kubectl("patch", "energyplan", "uneven", "--namespace", JOBS, "--type=merge", "--patch", change)

    def refused() -> bool:
        status = record.status("uneven")
        return status.phase is Phase.REFUSED and (status.observed_generation or 0) > generation

    def settled() -> None:
        plan, status = record.plan("uneven"), record.status("uneven")
        ready = {rank.staged_hash for rank in record.ranks("uneven", node="node1").values()}
        if not refused() and (plan is None or before is None or plan.hash == before.hash or ready != {plan.hash}):
            raise NotYetError(f"plan {plan and plan.hash}, ready {ready}; {status.phase}: {status.message}")

    until("the new plan ready on node1", BACK_S, settled)
    return not refused()


def test_a_node_that_hears_of_a_switch_late_runs_default_clocks_and_joins_at_a_block(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    pids = [processes.process(agent_pod(release, node), processes.HEARS) for node in ("node0", "node1")]
    with processes.cut_off(pids[0]) as first, processes.cut_off(pids[1]) as second:
        until(
            "every rank timed", BACK_S, lambda: timed(record)
        )  # an agent that is new isn't for a while, nor cut off ever
        first.cut()  # so that the plan can't be activated before the other node is cut off as well
        for slowdown_percent in range(3, 3 + RUNS):
            if ready_on_node1(release, record, slowdown_percent):
                break
            first.mend()  # for a plan that was refused, on two busy cores, all is measured anew
            in_force(release, record)
            until("every rank timed", BACK_S, lambda: timed(record))
            first.cut()
        else:
            pytest.fail(f"{RUNS} changed plans were refused: {record.status('uneven').message}")
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


def test_an_agent_that_is_killed_stops_no_plan_and_the_next_one_is_told_of_the_ranks(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    pod = agent_pod(release, "node0")
    agent, clocks = (processes.process(pod, program) for program in (processes.HEARS, processes.SETS))
    version = report_version(release, "node0")
    processes.kill(agent, signal.SIGKILL)
    while_locked(release, record, "uneven", "node0")
    until("another agent process", BACK_S, lambda: processes.process(pod, processes.HEARS) != agent)
    wait_resumed(release, record, "node0", version)
    assert processes.process(pod, processes.SETS) == clocks, "who sets clocks has gone on"


def test_clocks_that_are_killed_leave_none_locked(release: Product, record: Recorder) -> None:
    in_force(release, record)
    pod = agent_pod(release, "node0")
    pid = processes.process(pod, processes.SETS)
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
    version = report_version(release, "node0")
    until("another process of clocks", BACK_S, lambda: processes.process(pod, processes.SETS) != pid)
    said = release.kubectl("logs", pod["metadata"]["name"], "--container", "warden").splitlines()
    reset = "".join(line for line in said if "at default clocks: " in line)
    assert all(uuid in reset for uuid in left)
    wait_resumed(release, record, "node0", version)


@pytest.mark.parametrize("down", ["kubelet", "containerd"])
def test_clocks_that_are_killed_while_nobody_can_start_them_anew_leave_none_locked(
    release: Product, record: Recorder, down: str
) -> None:
    in_force(release, record)
    daemon = release.cluster.node("node0").pid(down)
    assert daemon is not None
    pod = agent_pod(release, "node0")
    pid = processes.process(pod, processes.SETS)
    processes.kill(daemon, signal.SIGSTOP)
    try:
        gpus = while_locked(release, record, "uneven", "node0")
        processes.kill(pid, signal.SIGKILL)
        since_ns = wait_returned(release, "node0", gpus, time.monotonic_ns())
        version = report_version(release, "node0")
        wait_iterations(release, {"node0": gpus})
        assert gpus <= release.gpus("node0").at_default(since_ns)
        assert not any(processes.alive(one) for one in processes.processes(pod, processes.SETS))
    finally:
        processes.kill(daemon, signal.SIGCONT)
    until("another process of clocks", BACK_S, lambda: processes.process(pod, processes.SETS) != pid)
    wait_resumed(release, record, "node0", version)


def test_a_node_that_stays_cut_off_returns_to_default_clocks_and_is_slowed_again_once_it_hears(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    gpus = while_locked(release, record, "uneven", "node1")
    with processes.cut_off(processes.process(agent_pod(release, "node1"), processes.HEARS)) as agent:
        agent.cut()
        since_ns = time.monotonic_ns()
        wait_at_default(release, {"node1": gpus}, limit_s=3 * PLANS_LIVE_S)
        played_s = (release.gpus("node1").last_locked_ns(gpus) - since_ns) / 1e9
        assert played_s > PLANS_LIVE_S / 2, "a plan lives on while news of it is young"
        version = report_version(release, "node1")
        agent.mend()
        wait_resumed(release, record, "node1", version)


def test_an_agent_pod_that_is_deleted_by_force_leaves_no_clock_locked(release: Product, record: Recorder) -> None:
    pod = agent_pod(release, "node1")
    name, pid = pod["metadata"]["name"], processes.process(pod, processes.SETS)
    gpus = while_locked(release, record, "uneven", "node1")
    release.kubectl("delete", "pod", name, "--grace-period=0", "--force")
    until("the end of its agent", RELEASED_S, lambda: not processes.alive(pid), 0.01)
    wait_returned(release, "node1", gpus, time.monotonic_ns())
    version = report_version(release, "node1")
    until("another pod", BACK_S, lambda: release.pod("agent", "node1")["metadata"]["name"] != name)
    wait_resumed(release, record, "node1", version)


def test_clocks_and_a_warden_that_are_killed_at_once_leave_none_locked(release: Product, record: Recorder) -> None:
    in_force(release, record)
    pod, gpus = agent_pod(release, "node1"), while_locked(release, record, "uneven", "node1")
    pids = [processes.process(pod, program) for program in processes.PROGRAMS]
    for sent in (signal.SIGSTOP, signal.SIGKILL):  # a stopped one can't reset before it is killed
        for pid in pids:
            processes.kill(pid, sent)
    wait_returned(release, "node1", gpus, time.monotonic_ns())
    version = report_version(release, "node1")
    wait_iterations(release, {"node1": gpus})
    wait_resumed(release, record, "node1", version)


def test_a_deleted_energyplan_lets_go_of_every_clock_and_the_training_goes_on(
    release: Product, record: Recorder
) -> None:
    in_force(release, record)
    gpus = {node: while_locked(release, record, "uneven", node) for node in ("node0", "node1")}
    release.cluster.kubectl("delete", "energyplan", "uneven", "--namespace", JOBS, "--timeout=20s")
    wait_at_default(release, gpus)
    assert record.plan("uneven") is None

    def states() -> set[RankState]:
        return {rank.state for rank in record.ranks("uneven").values()}

    until("ranks that observe", BACK_S, lambda: states() == {RankState.OBSERVING})


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
    killed_ns = time.monotonic_ns()
    processes.kill(ranks[number], signal.SIGKILL)
    since_ns = wait_returned(release, "node0", {gpu}, killed_ns)
    assert any(processes.alive(pid) for pid in workers)
    for kind in ("pytorchjob", "energyplan"):
        release.cluster.kubectl("delete", kind, "uneven", "--namespace", JOBS)
    until("no rank of uneven", BACK_S, lambda: not record.ranks("uneven"))
    assert gpu in release.gpus("node0").at_default(since_ns)


def test_a_second_run_of_the_same_pipeline_uses_the_profile_of_the_first(release: Product, record: Recorder) -> None:
    (first,) = (name for name in record.living("energyprofiles") if name.startswith("uneven-"))

    def settled() -> None:
        status = record.status("again")
        if status.phase not in (Phase.ACTIVE, Phase.REFUSED):
            raise NotYetError(f"EnergyPlan again is {status.phase}: {status.message}")

    for _ in range(RUNS):
        jobs.apply(release.cluster, jobs.energy_plan("again"), jobs.training_job("again", first_kernel=UNEVEN))
        until("a plan for again", 4 * BACK_S, settled, 0.2)
        status = record.status("again")
        (profiled,) = [one for one in status.conditions if one.type == "Profiled"]
        if status.phase is Phase.ACTIVE and profiled.reason in HELD:
            break
        # On two busy cores its iterations may be of another length than those that were profiled.
        for kind in ("pytorchjob", "energyplan"):
            release.cluster.kubectl("delete", kind, "again", "--namespace", JOBS)
        until("no rank of again", BACK_S, lambda: not record.ranks("again"))
        for name in record.living("energyprofiles"):
            if name.startswith("again"):
                release.cluster.kubectl("delete", "energyprofile", name, "--namespace", JOBS)
    assert profiled.reason in HELD
    assert f"EnergyProfile {first}, of an earlier run, is used again" in profiled.message
    phases = {one.body.get("status", {}).get("phase") for one in record.versions("energyplans", "again")}
    assert {"Planned", "Active"} <= phases


def test_a_training_pod_that_is_killed_leaves_no_clock_locked(release: Product, record: Recorder) -> None:
    in_force(release, record, "again")
    worker = jobs.pods(release.cluster, "again", count=2)[1]
    pids = processes.processes(worker, "/end-to-end/pipeline.py")
    gpus = while_locked(release, record, "again", "node1")
    release.cluster.kubectl(
        *("delete", "pod", "--namespace", JOBS, worker["metadata"]["name"], "--grace-period=0", "--force")
    )
    until("the end of its processes", RELEASED_S, lambda: not any(processes.alive(pid) for pid in pids), 0.01)
    since_ns = wait_returned(release, "node1", gpus, time.monotonic_ns())
    until("reports of the new pod", BACK_S, lambda: restarted(release, record), 1)
    assert gpus <= release.gpus("node1").at_default(since_ns)


def test_uninstalling_lets_go_of_every_clock_and_the_training_succeeds(release: Product, record: Recorder) -> None:
    in_force(release, record, "again")
    nodes = ("node0", "node1")
    gpus = {node: while_locked(release, record, "again", node) for node in nodes}
    pods = [agent_pod(release, node) for node in nodes]
    pids = [processes.process(pod, program) for pod in pods for program in processes.PROGRAMS]
    step = max(rank.iteration for rank in record.ranks("again").values())
    begun = {node: release.gpus(node).computed() for node in nodes}
    release.cluster.helm("uninstall", RELEASE, "--namespace", SYSTEM, "--wait", "--timeout", "60s")
    until("the agents' end", RELEASED_S, lambda: not any(processes.alive(pid) for pid in pids), 0.01)
    since_ns = time.monotonic_ns()
    wait_iterations(release, gpus)
    # Every GPU, not only those that were seen locked.
    every = {node: set(state.uuids(release.gpus(node).path)) for node in nodes}
    assert all(ones <= release.gpus(node).at_default(since_ns) for node, ones in every.items())
    for node in nodes:
        journal = release.cluster.node(node).layout.folder / "private/var/lib/joulepath/locked-gpus"
        assert "GPU-" not in journal.read_text(), "nothing is in doubt"
    kernels = max(now - begun[node][gpu] for node in nodes for gpu, now in release.gpus(node).computed().items())
    jobs.stop(release.cluster, "again", step + kernels // jobs.KERNELS + jobs.AHEAD)
    jobs.phase(release.cluster, "again", "Succeeded")
    assert all(ones <= release.gpus(node).at_default(since_ns) for node, ones in every.items())
