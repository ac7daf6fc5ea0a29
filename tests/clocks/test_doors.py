"""A socket for each pod: who comes by it is in that pod, and nobody else is hurt by what he does."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from joulepath_clocks.channel.words import Came
from joulepath_clocks.doors import PodDoors
from joulepath_clocks.endpoint import Endpoint
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.gpus.nvml import Gpu
from joulepath_clocks.gpus.setter import ClockSetter
from joulepath_clocks.peers.budget import BUDGET
from joulepath_clocks.peers.cgroup import CgroupIdentity
from joulepath_clocks.peers.peer import Identify, JobPod, Peer
from joulepath_clocks.peers.refusal import PeerRefusedError
from joulepath_clocks.ranks.lifetime import TimeToLive
from joulepath_clocks.ranks.page import SharedPage
from joulepath_clocks.ranks.rank import Rank
from joulepath_injector.folders import PodFolders
from joulepath_trainer.memory import OwnPage
from joulepath_trainer.wire.messages import PROCESS, Hello, IterationRecord, PipelinePlace, Reply
from tests.agent.room import Launcher, LocalAgent, Room, wait_until
from tests.agent.test_agent import LOW_MHZ, held
from tests.clocks.gpus.test_setter import MovedGpu, NotedLessor
from tests.clocks.peers.old_kernel import before_5_3, before_6_5
from virtual_gpus.fixtures import MakeVirtualGpus

POD, OTHER = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", "1b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
HELLO = Hello(0, 0, 1, 0, "GPU-1", "stream", PipelinePlace("Schedule1F1B", 1, 1, (0,), (0,)))


class House:
    """An endpoint with doors for pods, a /proc that says which pod a process is in, and ranks for all who ask."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.pods = folder / "pods"
        self.proc = folder / "proc"
        self.proc.mkdir()
        (self.proc / "self").symlink_to("/proc/self")
        self.refusals: Counter[str] = Counter()
        self.ranks: list[Rank] = []
        self.ends: list[End] = []
        """Why ranks ended."""
        self.page = OwnPage().descriptor
        stack.callback(os.close, self.page)
        self._folder, self._stack = folder, stack

    def open(self, identify: Identify, most: int = BUDGET.pods) -> None:
        """Begins to serve."""
        served = Endpoint(
            self._folder / "agent.sock",
            identify,
            self._admit,
            lambda _: None,
            self._refused,
            replace(BUDGET, pods=most),
            pods=self.pods,
            proc=self.proc,
        )
        served.start()
        self._stack.callback(served.stop)

    def open_on_old_kernel(self) -> None:
        """Begins to serve where the kernel doesn't tell who connects."""
        self.open(lambda *asked: before_5_3(lambda: CgroupIdentity(self.proc)(*asked)))

    def stands(self, pid: int, pod: str) -> None:
        """That process is in that pod from now on."""
        (self.proc / str(pid)).mkdir(exist_ok=True)
        (self.proc / str(pid) / "cgroup").write_text(f"0::/kubepods/pod{pod}/c\n")

    def door(self, pod: str) -> Path:
        """Makes that pod's folder, and waits for its socket."""
        (self.pods / pod).mkdir()
        wait_until((self.pods / pod / "agent.sock").exists, "it has a socket")
        return self.pods / pod / "agent.sock"

    def client(self, path: Path) -> socket.socket:
        """A connection of this process."""
        made = self._stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        made.settimeout(60)
        made.connect(str(path))
        return made

    def ask(self, path: Path) -> tuple[socket.socket, Reply]:
        """A connection of this process that has said hello, and the answer."""
        made = self.client(path)
        socket.send_fds(made, [HELLO.encode()], [self.page])
        return made, Reply.decode(made.recv(4096))

    def _admit(self, hello: Hello, peer: Peer, page: SharedPage) -> Rank:
        gpu = MovedGpu(capped=False)
        gpu.refused = None  # type: ignore[attr-defined]
        setter = ClockSetter(cast(Gpu, gpu), NotedLessor())
        self._stack.callback(setter.close, 5.0)
        pod = JobPod("default", "pod", peer.pod_uid, "job", "job-uid")
        came, life = Came(len(self.ranks), "GPU-1", pod, hello.encode()), TimeToLive(math.inf)
        rank = _Noted(came, hello, peer, page, setter, lambda _: None, lambda _: None, time_to_live=life)
        rank.ends = self.ends
        self.ranks.append(rank)
        return rank

    def _refused(self, code: str) -> None:
        self.refusals[code] += 1


class _Noted(Rank):
    """A rank that notes why it ended."""

    ends: list[End]

    def close(self, end: End) -> None:
        if self.alive:
            self.ends.append(end)
        super().close(end)


@pytest.fixture
def house() -> Iterator[House]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:  # a socket's name has 107 characters
        yield House(Path(folder), stack)


def by_door(connection: socket.socket, made_after_s: float, pod_uid: str | None) -> Peer:
    """A peer of the pod whose door it is."""
    return Peer(os.getpid(), os.pidfd_open(os.getpid()), pod_uid or "any")


# folders


def test_a_folder_named_by_a_pod_gets_a_socket_for_everybody_in_it(house: House) -> None:
    house.open(by_door)
    path = house.door(POD)
    wait_until(lambda: stat.S_IMODE(path.stat().st_mode) == 0o666, "training pods of any user may connect")
    assert stat.S_IMODE(house.pods.stat().st_mode) == 0o700, "users of the node get to none"
    _, reply = house.ask(path)
    assert reply == Reply(accepted=True)
    assert house.ranks[0].peer.pod_uid == POD


def test_static_pods_have_one_as_well(house: House) -> None:
    house.open(by_door)
    house.door(POD.replace("-", ""))


def test_containers_of_a_pod_have_one_each_and_each_ends_alone(house: House) -> None:
    house.open(by_door)
    folders, containers = PodFolders(house.pods), ("0123456789abcdef" * 4, "1123456789abcdef" * 4)
    paths = [folders.make(POD, container) / "agent.sock" for container in containers]
    wait_until(lambda: all(path.exists() for path in paths), "each has a socket")
    clients = [house.ask(path)[0] for path in paths]
    assert [rank.peer.pod_uid for rank in house.ranks] == [POD, POD]
    folders.remove(POD, containers[0])
    assert clients[0].recv(1) == b""
    assert [rank.alive for rank in house.ranks] == [False, True]


def test_what_is_no_folder_of_a_pod_gets_none(house: House) -> None:
    house.open(by_door)
    elsewhere = house.pods.parent / "elsewhere"
    elsewhere.mkdir()
    for name in (POD.upper(), POD[:-1], f"{POD}0", f"{POD}.partial", f"{POD}.", f"{POD}.0.0", "..."):
        (house.pods / name).mkdir()
    (house.pods / OTHER).symlink_to(elsewhere)
    (house.pods / OTHER.replace("1b", "2b")).write_text("a file")
    house.door(POD)
    assert [str(one) for one in house.pods.rglob("*.sock")] == [str(house.pods / POD / "agent.sock")]
    assert not list(elsewhere.iterdir())


def test_a_folder_that_is_gone_ends_its_ranks_and_no_others(house: House) -> None:
    house.open(by_door)
    clients = [house.ask(house.door(pod))[0] for pod in (POD, OTHER)]
    shutil.rmtree(house.pods / POD)
    assert clients[0].recv(1) == b""
    assert house.ends == [End.POD_GONE]
    assert [rank.alive for rank in house.ranks] == [False, True]
    house.door(POD)
    assert house.ask(house.pods / POD / "agent.sock")[1].accepted, "it may come again"


def test_a_folder_that_was_made_anew_between_two_looks_gets_a_socket_of_its_own(house: House) -> None:
    house.open(by_door)
    path = house.door(POD)
    client, _ = house.ask(path)
    os.rename(path.parent, house.pods / "aside")
    path.parent.mkdir()
    wait_until(path.exists, "it has a socket")
    assert client.recv(1) == b""
    assert house.ask(path)[1].accepted


def test_a_folder_that_is_being_removed_gets_no_other_socket_in_between(house: House) -> None:
    (house.pods / POD).mkdir(parents=True)
    doors = PodDoors(house.pods, 1, 1)
    ((door,), gone) = doors.look()
    assert not gone
    door.path.unlink()
    assert doors.look() == ([], [door])
    door.path.parent.rmdir()
    assert doors.look() == ([], [])
    door.close()


def test_the_sockets_of_a_process_before_are_replaced(house: House) -> None:
    (house.pods / POD).mkdir(parents=True)
    path = house.pods / POD / "agent.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as before:
        before.bind(str(path))
    house.open(by_door)

    def answers() -> bool:
        try:
            return house.ask(path)[1].accepted
        except ConnectionRefusedError:
            return False

    wait_until(answers, "there is another one")


def test_a_folder_that_can_have_no_socket_disturbs_no_other(house: House, caplog: pytest.LogCaptureFixture) -> None:
    (house.pods / OTHER / "agent.sock").mkdir(parents=True)
    house.open(by_door)
    assert house.ask(house.door(POD))[1].accepted
    time.sleep(1)  # some more looks
    complaints = [line for line in caplog.messages if line.startswith(f"pod {OTHER} has no socket")]
    assert len(complaints) == 1, "it is told once"
    (house.pods / OTHER / "agent.sock").rmdir()
    wait_until((house.pods / OTHER / "agent.sock").exists, "it has one")


def test_so_many_pods_have_one_at_most_and_the_others_once_there_is_room(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.open(by_door, most=1)
    house.door(POD)
    (house.pods / OTHER).mkdir()
    wait_until(lambda: f"pod {OTHER} has no socket: 1 have one already" in caplog.messages, "it is told")
    shutil.rmtree(house.pods / POD)
    wait_until((house.pods / OTHER / "agent.sock").exists, "there is room")


def folders_of(pods: Path, uid: str, containers: int) -> list[Path]:
    """Makes so many folders of a pod, as the injector does."""
    return [PodFolders(pods).make(uid, secrets.token_hex(32)) for _ in range(containers)]


def test_a_pod_with_many_containers_has_some_sockets_and_leaves_the_others_theirs(house: House) -> None:
    pods = house.pods
    greedy = [str(uuid.uuid4()) for _ in range(6)]
    for uid in greedy:
        folders_of(pods, uid, BUDGET.pods)
    doors = PodDoors(pods, BUDGET.pods, BUDGET.doors_per_pod)
    opened = [*doors.look()[0]]
    folders_of(pods, POD, 1)
    opened += doors.look()[0]
    has = Counter(door.pod_uid for door in opened)
    for door in opened:
        door.close()
    assert has.pop(POD) == 1
    assert has.keys() == {*greedy}
    assert max(has.values()) <= BUDGET.doors_per_pod
    assert len(opened) <= 2 * BUDGET.pods


def test_a_containers_socket_makes_room_for_the_next_one_of_its_pod(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    folders = folders_of(house.pods, POD, 3)
    doors = PodDoors(house.pods, 8, 2)
    opened = [*doors.look()[0]]
    assert len(opened) == 2
    assert caplog.messages == [f"pod {POD} has no further socket: it has 2 already"]
    shutil.rmtree(opened[0].path.parent)
    doors.look()
    opened += doors.look()[0]
    for door in opened:
        door.close()
    assert {door.path.parent for door in opened} == {*folders}


FLOOD = """
import socket, sys
while True:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as client:
        try:
            client.connect(sys.argv[1])
        except BlockingIOError:
            pass
"""


@pytest.mark.slow
def test_a_pod_that_floods_its_own_socket_keeps_no_other_out_of_theirs(house: House) -> None:
    house.open(by_door)
    path = house.door(POD)
    with subprocess.Popen([sys.executable, "-c", FLOOD, str(house.door(OTHER))]) as flooder:
        try:
            wait_until(lambda: house.refusals["TooOften"] > 1000, "the flood is there")
            for _ in range(20):
                client, reply = house.ask(path)  # at once: never is this queue full
                assert reply.accepted
                client.close()
            assert flooder.poll() is None
        finally:
            flooder.kill()


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
