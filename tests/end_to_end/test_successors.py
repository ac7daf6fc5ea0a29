"""The agent's pod makes place for another one under a plan: clocks return, the training goes on, the next one resumes.

It is rolled, evicted, or begins where the disk is full. `uneven` trains since the module before.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from real_cluster import until
from tests.end_to_end import processes
from tests.end_to_end.product import SPILL, SYSTEM, Product, upgrade
from tests.end_to_end.waiting import (
    BACK_S,
    agent_pod,
    gpus_of,
    in_force,
    report_version,
    wait_iterations,
    wait_reported,
    wait_resumed,
    wait_returned,
    while_locked,
)
from tests.end_to_end.watching import Recorder

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600), pytest.mark.usefixtures("uneven")]

DISK_BYTES: Final = 65536
STATE: Final = "/var/lib/joulepath"


def iterations(record: Recorder) -> dict[int, int]:
    """The iteration of each rank of `uneven`; a training that was started anew would count from 0."""
    return {number: rank.iteration for number, rank in record.ranks("uneven").items()}


def wait_ended(release: Product, pids: Mapping[str, int], gpus: Mapping[str, set[str]]) -> dict[str, int]:
    """Until these processes, by node, have ended and their GPUs were default; the versions of their last reports."""
    versions = dict[str, int]()

    def look() -> bool:
        for node in pids.keys() - versions.keys():
            if not processes.alive(pids[node]):
                wait_returned(release, node, gpus[node], time.monotonic_ns())
                versions[node] = report_version(release, node)
        return versions.keys() == pids.keys()

    until("the end of the agents", BACK_S, look, 0.01)
    return versions


def assert_replaced(release: Product, record: Recorder, nodes: tuple[str, ...], how: Callable[[], object]) -> None:
    """Has the agents' pods of these nodes replaced under a plan, and asks what is promised of each."""
    in_force(release, record)
    pids = {node: processes.process(agent_pod(release, node), processes.SETS) for node in nodes}
    gpus = {node: gpus_of(record, "uneven", node) for node in nodes}
    begun = iterations(record)
    while_locked(release, record, "uneven", nodes[0])
    how()
    for node, version in wait_ended(release, pids, gpus).items():
        wait_resumed(release, record, node, version)

    def goes_on() -> bool:
        now = iterations(record)
        return all(now[number] > iteration for number, iteration in begun.items())

    until("further iterations", BACK_S, goes_on)


def test_agents_that_are_rolled_return_clocks_and_their_successors_resume_the_plan(
    release: Product, record: Recorder
) -> None:
    """By a value that changes: without the priority of the node's own pods, the kubelet may evict them."""
    nodes = ("node0", "node1")
    assert_replaced(release, record, nodes, lambda: upgrade(release.cluster, {"priorityClassName": ""}))
    assert {agent_pod(release, node)["spec"]["priority"] for node in nodes} == {0}


def test_agents_that_are_evicted_return_clocks_and_their_successors_resume_the_plan(
    release: Product, record: Recorder
) -> None:
    """One by the kubelet, for a volume over its limit: as under node pressure, it has a second to end.

    The other one by the Eviction API, as `kubectl drain` does.
    """
    nodes = ("node0", "node1")
    spilling, drained = (agent_pod(release, node)["metadata"] for node in nodes)
    volumes = f"private/var/lib/kubelet/pods/{spilling['uid']}/volumes/kubernetes.io~empty-dir"
    file = release.cluster.node("node0").layout.folder / volumes / SPILL / "too-much"
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": drained["name"]}}
    where = f"/api/v1/namespaces/{SYSTEM}/pods/{drained['name']}/eviction"

    def evict() -> None:
        file.write_bytes(bytes(2 << 20))
        release.kubectl("create", "--raw", where, "--filename", "-", stdin=json.dumps(eviction))

    assert_replaced(release, record, nodes, evict)
    events = json.loads(release.kubectl("get", "events", "--field-selector=reason=Evicted", "--output=json"))["items"]
    assert spilling["name"] in {one["involvedObject"]["name"] for one in events}


class Disk:
    """A small disk under the state folder of a node: of agents and wardens whose containers are made from now on."""

    def __init__(self, release: Product, node: str) -> None:
        self._release, self.node = release, node
        self._node = release.cluster.node(node)
        self._node.nsenter("mount", "--no-mtab", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "disk", STATE)
        self._folder = Path(f"/proc/{self._node.pid('namespace')}/root{STATE}")

    def fill(self) -> None:
        """To its last byte."""
        with (self._folder / "filler").open("wb", buffering=0) as file:
            assert file.write(bytes(2 * DISK_BYTES)) <= DISK_BYTES
            with pytest.raises(OSError, match="No space left"):
                file.write(b"0")

    def empty(self) -> None:
        """Makes room again."""
        (self._folder / "filler").unlink()

    def journal(self) -> str:
        """What stands in the journal; nothing where there is none."""
        try:
            return (self._folder / "locked-gpus").read_text()
        except OSError:
            return ""

    def remove(self) -> None:
        """From under the containers that are made from now on."""
        self._node.nsenter("umount", "--no-mtab", "--lazy", STATE)

    def replace_pod(self) -> dict[str, int]:
        """Deletes the agent's pod, as a person would; the pids of its programs."""
        pod = agent_pod(self._release, self.node)
        pids = {program: processes.process(pod, program) for program in processes.PROGRAMS}
        self._release.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
        return pids


@pytest.fixture(scope="module")
def disk(release: Product, record: Recorder) -> Iterator[Disk]:
    """On one node: first a pod begins where it is full, then it has room, and fills under the plan."""
    made = Disk(release, "node1")
    try:
        yield made
    finally:
        made.remove()
        pids = made.replace_pod()
        until("the end of the pod", BACK_S, lambda: not any(map(processes.alive, pids.values())))
        wait_resumed(release, record, made.node, report_version(release, made.node))


def test_an_agent_that_begins_on_a_full_disk_locks_nothing_until_there_is_room(
    release: Product, record: Recorder, disk: Disk
) -> None:
    in_force(release, record)
    begun, gpus = iterations(record), {disk.node: gpus_of(record, "uneven", disk.node)}
    disk.fill()
    ended = wait_ended(release, {disk.node: disk.replace_pod()[processes.SETS]}, gpus)
    since_ns = time.monotonic_ns()
    wait_reported(record, disk.node, ended[disk.node])
    wait_iterations(release, gpus)
    assert gpus[disk.node] <= release.gpus(disk.node).at_default(since_ns)
    assert "GPU-" not in disk.journal()
    disk.empty()
    wait_resumed(release, record, disk.node, ended[disk.node])

    def went_on() -> bool:
        now = iterations(record)
        return all(now[number] > iteration for number, iteration in begun.items())

    until("every rank has told that it goes on", BACK_S, went_on)


def test_a_disk_that_fills_under_a_plan_stops_nothing_and_no_clock_is_locked_that_it_does_not_name(
    release: Product, record: Recorder, disk: Disk
) -> None:
    in_force(release, record)
    gpus = {disk.node: while_locked(release, record, "uneven", disk.node)}
    pod = agent_pod(release, disk.node)
    pid = processes.process(pod, processes.SETS)

    def trains(iterations: int) -> None:
        wait_iterations(release, gpus, iterations, meanwhile=named)

    def named() -> None:
        before, found, after = disk.journal(), release.gpus(disk.node).locked(), disk.journal()
        assert all(gpu in before + after for gpu in found), "what a death would leave is known"

    assert "GPU-" in disk.journal(), "the test before this one has brought the agent here"
    disk.fill()
    trains(4)
    locked = while_locked(release, record, "uneven", disk.node)
    processes.kill(pid, signal.SIGKILL)
    wait_returned(release, disk.node, locked, time.monotonic_ns())
    version = report_version(release, disk.node)
    until("another process of clocks", BACK_S, lambda: processes.process(pod, processes.SETS) != pid)
    trains(4)
    disk.empty()
    wait_resumed(release, record, disk.node, version)
