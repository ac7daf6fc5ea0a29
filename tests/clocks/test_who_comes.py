"""Who comes by a pod's door: what the kernel, a pidfd or the door itself tells, and when that ends."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from joulepath_clocks.gpus.lease import End
from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.peers.peer import Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_trainer.wire.messages import PROCESS, IterationRecord, Reply
from tests.agent.room import Launcher, LocalAgent, Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held
from tests.clocks.door_house import OTHER, POD, House
from tests.clocks.peers.old_kernel import before_6_5
from virtual_gpus.fixtures import MakeVirtualGpus

# who is there


def test_where_the_kernel_tells_nobody_its_process_is_in_the_pod_of_the_socket(house: House) -> None:
    house.open_on_old_kernel()
    client, reply = house.ask(house.door(POD))
    assert reply == Reply(accepted=True, wants_process=True)
    assert house.ranks[0].peer == Peer(0, None, POD)
    client.close()
    wait_until(lambda: house.ends == [End.CONNECTION_CLOSED], "its end is seen by the connection")


def test_a_pidfd_that_the_kernel_gives_is_used_and_none_is_asked_for(house: House) -> None:
    """Before Linux 6.5 it gives one to those who see the host's processes."""
    house.stands(os.getpid(), POD)
    (house.proc / str(os.getpid()) / "stat").symlink_to(f"/proc/{os.getpid()}/stat")
    house.open(lambda *asked: before_6_5(lambda: CgroupIdentity(house.proc)(*asked)))
    _, reply = house.ask(house.door(POD))
    assert reply == Reply(accepted=True)
    assert (house.ranks[0].peer.pid, house.ranks[0].peer.sent) == (os.getpid(), False)


def test_where_the_kernel_tells_nobody_the_socket_for_all_pods_stays_shut(house: House) -> None:
    house.open_on_old_kernel()
    reply = Reply.decode(house.client(house.pods.parent / "agent.sock").recv(4096))
    assert reply.reason.startswith("NoPidfd")
    assert reply.final


def test_a_process_of_another_pod_is_refused_where_the_kernel_tells(house: House) -> None:
    """It may have been handed the folder, or the socket."""
    house.stands(os.getpid(), OTHER)
    house.open(CgroupIdentity(house.proc))
    reply = Reply.decode(house.client(house.door(POD)).recv(4096))
    assert reply.reason == f"OtherPod: process {os.getpid()} of pod {OTHER} came by the socket of pod {POD}"
    assert house.ask(house.door(OTHER))[1] == Reply(accepted=True)


@pytest.mark.parametrize("shown", [True, False], ids=["in no pod's cgroup", "not shown"])
def test_a_process_whose_pod_cannot_be_told_is_in_that_of_the_socket(house: House, shown: bool) -> None:
    if not shown:
        (house.proc / "self").unlink()
    house.open(CgroupIdentity(house.proc))
    assert house.ask(house.door(POD))[1] == Reply(accepted=True)
    peer = house.ranks[0].peer
    assert (peer.pid, peer.pod_uid, peer.sent) == (os.getpid() if shown else 0, POD, False)
    assert peer.pidfd is not None


# its process, by its own word

TRAINER = """
import os, sys, time
from joulepath_trainer.connection import Handshake
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import Hello, PipelinePlace

page = OwnPage()
hello = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))
connection = Handshake(sys.argv[1], hello, page.descriptor).poll(60)
assert connection is not None
if os.fork() == 0:
    time.sleep(600)  # holds the connection, whoever dies
print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_where_the_kernel_tells_nobody_the_trainer_sends_what_shows_its_end(house: House) -> None:
    house.open_on_old_kernel()
    path = house.door(POD)
    command = ["sh", "-c", 'exec "$0" -c "$1" "$2"', sys.executable, TRAINER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as trainer:
        house.stands(trainer.pid, POD)
        try:
            wait_until(lambda: bool(house.ranks) and house.ranks[0].peer.sent, "its process is known")
            assert house.ranks[0].peer.pid == trainer.pid
            assert not house.ranks[0].process_gone()
            assert trainer.stdout is not None
            trainer.stdout.readline()
            trainer.kill()
            wait_until(lambda: house.ends == [End.PROCESS_GONE], "its end is seen, though its child is connected")
        finally:
            os.killpg(trainer.pid, 9)


def file_like_a_pidfd() -> Sequence[int]:
    with tempfile.TemporaryDirectory() as folder:
        return [os.open(Path(folder) / "anon_inode:[pidfd]", os.O_CREAT | os.O_RDWR)]


def ended() -> Sequence[int]:
    with subprocess.Popen(["true"]) as process:
        return [os.pidfd_open(process.pid)]


HOSTILE: dict[str, Callable[[], Sequence[int]]] = {
    "nothing": list,
    "a pipe": lambda: os.pipe()[:1],
    "a file of that name": file_like_a_pidfd,
    "memory of that name": lambda: [os.memfd_create("anon_inode:[pidfd]")],
    "another file without a name": lambda: [os.eventfd(0)],
    "init": lambda: [os.pidfd_open(1)],
    "a process of another pod": lambda: [os.pidfd_open(os.getppid())],
    "a process that is gone": ended,
    "the process twice": lambda: [os.pidfd_open(os.getpid()), os.pidfd_open(os.getpid())],
    "more descriptors than are read": lambda: [os.pidfd_open(os.getpid()) for _ in range(40)],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_is_no_pidfd_of_the_pod_is_closed_and_the_rank_goes_on_without(house: House, what: str) -> None:
    house.stands(os.getpid(), POD)
    house.stands(os.getppid(), OTHER)
    house.open_on_old_kernel()
    client, _ = house.ask(house.door(POD))
    before = len(os.listdir("/proc/self/fd"))
    made = HOSTILE[what]()
    left = len(os.listdir("/proc/self/fd")) - before - len(made)  # another end, which nobody is sent
    socket.send_fds(client, [PROCESS], made)
    for descriptor in made:
        os.close(descriptor)
    client.send(IterationRecord(0, 1.0, 1.0).encode())
    wait_until(lambda: len(os.listdir("/proc/self/fd")) - left <= before, "all that was sent is closed")
    assert house.ranks[0].peer == Peer(0, None, POD)
    assert house.ranks[0].alive


def test_a_pidfd_is_taken_once_and_only_where_it_was_asked_for(house: House) -> None:
    house.stands(os.getpid(), POD)
    house.open_on_old_kernel()
    client, _ = house.ask(house.door(POD))
    pidfd = os.pidfd_open(os.getpid())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        socket.send_fds(client, [PROCESS], [pidfd])
    os.close(pidfd)
    wait_until(lambda: house.ranks[0].peer.sent, "the first is taken")
    time.sleep(0.5)
    assert len(os.listdir("/proc/self/fd")) == before
    client.close()
    wait_until(lambda: len(os.listdir("/proc/self/fd")) < before - 1, "it is closed with its rank")


def test_a_trainer_of_before_that_sends_none_is_served(house: House) -> None:
    house.stands(os.getpid(), POD)
    house.open_on_old_kernel()
    client, _ = house.ask(house.door(POD))
    for _ in range(2):
        client.send(IterationRecord(0, 1.0, 1.0).encode())
    socket.send_fds(client, [PROCESS], [os.pidfd_open(1)])  # too late
    client.close()
    wait_until(lambda: house.ends == [End.CONNECTION_CLOSED], "it was served until its end")
    assert not house.ranks[0].peer.sent


def test_a_refusal_says_which_peer_it_is_as_far_as_is_known() -> None:
    assert str(Peer(7, None, POD)) == "process 7"
    assert str(Peer(0, None, POD)) == f"a process of pod {POD}"


def test_a_peer_that_nobody_can_tell_is_no_error_of_the_protocol(house: House) -> None:
    def shy(connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
        raise PeerRefusedError("NoPod", "gone")

    house.open(shy)
    assert not Reply.decode(house.client(house.door(POD)).recv(4096)).final


@pytest.fixture
def node(
    launcher: Launcher, make_virtual_gpus: MakeVirtualGpus
) -> Iterator[Callable[..., tuple[Room, Path, LocalAgent]]]:
    """Factory of a node whose pod has all GPUs and a door: `node(*options of the clocks)`."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:

        def make(*options: str) -> tuple[Room, Path, LocalAgent]:
            made = Room(launcher, make_virtual_gpus(None, time_scale=0.1), Path(folder), stack)
            path = Path(folder) / "pods" / POD / "agent.sock"
            path.parent.mkdir(parents=True)
            agent = made.agent({POD: made.gpus.uuids}, 2, *options)
            wait_until(path.exists, "the pod has a socket")
            return made, path, agent

        yield make


@pytest.mark.parametrize("options", [(), ("--untold",)], ids=["the kernel tells", "it doesn't"])
def test_a_clock_is_released_when_the_folder_of_its_pod_is_gone(
    node: Callable[..., tuple[Room, Path, LocalAgent]], options: tuple[str, ...]
) -> None:
    made, path, agent = node(*options)
    assert made.peer("whatever-it-says", path, iterations=100_000).hear()["accepted"]
    agent.plans(held())
    wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
    shutil.rmtree(path.parent)
    wait_until(lambda: made.clock() == 0, "the clock is reset")
    assert agent.counts()["leaseEnds"] == {"PodGone": 1}


def test_of_processes_that_nobody_can_tell_one_has_a_gpu_until_its_connection_ends(
    node: Callable[..., tuple[Room, Path, LocalAgent]],
) -> None:
    made, path, _ = node("--untold")
    first = made.peer("a", path, iterations=100_000)
    assert first.hear()["accepted"]
    refusal = made.peer("a", path, rank=1, iterations=100_000).hear()
    assert refusal["reason"] == f"GpuClaimed: a process of pod {POD} already runs on {made.gpus.uuids[0]}"
    assert not refusal["final"]
    first.end()
    assert made.peer("a", path, rank=1, iterations=100_000, patient=True).hear()["accepted"]
