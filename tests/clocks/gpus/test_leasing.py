"""The agent's side of the warden, beside a real one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from joulepath_clocks.gpus.leasing import Leasing
from tests.agent.room import Room, wait_until


class Agent:
    """What a lease depends on, and what it is told."""

    def __init__(self) -> None:
        self.well, self.revoked = True, list[tuple[str, str]]()

    def is_well(self, uuid: str) -> bool:
        """Whether its threads live."""
        return self.well

    def on_revoked(self, uuid: str, reason: str) -> None:
        """Notes what it has to let go of."""
        self.revoked.append((uuid, reason))


@pytest.fixture
def lease() -> Iterator[Callable[[Room, Agent], Leasing]]:
    """Factory of a connection."""
    with ExitStack() as stack:

        def begin(room: Room, agent: Agent) -> Leasing:
            leasing = Leasing(room.state_dir, agent.is_well, agent.on_revoked)
            leasing.start()
            stack.callback(leasing.stop)
            return leasing

        yield begin


def takes(leasing: Leasing, uuid: str) -> None:
    """Leases a GPU as soon as the warden has seen it and has reset it."""
    wait_until(lambda: not leasing.take(uuid), f"{uuid} is leased")


def test_a_lease_is_on_the_disk_before_it_is_given_and_until_it_is_given_back(
    room: Callable[..., Room], lease: Callable[[Room, Agent], Leasing]
) -> None:
    made, agent = room(), Agent()
    made.warden()
    leasing, uuid = lease(made, agent), made.gpus.uuids[0]
    takes(leasing, uuid)
    assert made.named() == [uuid]
    leasing.give_back(uuid)
    assert made.named() == []
    assert (leasing.trouble, agent.revoked) == ("", [])


def test_what_isn_t_well_is_revoked_until_it_is_given_back(
    room: Callable[..., Room], lease: Callable[[Room, Agent], Leasing]
) -> None:
    made, agent = room(), Agent()
    made.warden()
    leasing, uuid = lease(made, agent), made.gpus.uuids[0]
    takes(leasing, uuid)
    agent.well = False
    wait_until(lambda: len(agent.revoked) > 1, "it is told, again and again")
    assert {one for one, _ in agent.revoked} == {uuid}
    assert "is being reset" in leasing.take(uuid)
    agent.well = True
    leasing.give_back(uuid)
    takes(leasing, uuid)


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGSTOP])
def test_without_a_warden_all_is_to_be_let_go_of_and_nothing_leased_before_it_is(
    room: Callable[..., Room], lease: Callable[[Room, Agent], Leasing], by: signal.Signals
) -> None:
    made, agent = room(), Agent()
    leasing, uuid = lease(made, agent), made.gpus.uuids[0]
    assert "no warden answers" in leasing.take(uuid)
    warden = made.warden()
    takes(leasing, uuid)
    agent.revoked.clear()  # on a busy machine it may have been lost once on the way
    warden.send(by)
    wait_until(lambda: agent.revoked != [], "it is told")
    assert agent.revoked[0][1].startswith("the warden is gone")
    if by == signal.SIGKILL:
        made.warden()
    else:
        warden.send(signal.SIGCONT)
    assert "the warden is gone" in leasing.take(made.gpus.uuids[1])
    leasing.give_back(uuid)
    takes(leasing, made.gpus.uuids[1])
