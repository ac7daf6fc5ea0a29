"""A socket for each pod: who comes by it is in that pod, and nobody else is hurt by what he does."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from joulepath_clocks.doors import PodDoors
from joulepath_clocks.gpus.lease import End
from joulepath_clocks.peers.budget import BUDGET
from joulepath_injector.folders import PodFolders
from joulepath_trainer.wire.messages import Reply
from tests.agent.room import wait_until
from tests.clocks.door_house import OTHER, POD, House, by_door

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
