"""Agent and clocks lose each other, and live on."""

from __future__ import annotations

import socket
from collections.abc import Callable

from joulepath_clocks.channel.words import MOST_BYTES, SOCKET_NAME
from joulepath_crds import RankReport
from tests.agent.room import Room, wait_until

MEASURED = 60


def samples(rank: RankReport | None) -> int:
    """Of all instructions, as a report has them."""
    return 0 if rank is None else sum(one.samples for one in rank.instructions)


def part(one: Room) -> None:
    """Another agent takes the first one's place for a moment; returns when the first one is back."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(str(one.state_dir / SOCKET_NAME))
        while other.recv(2 * MOST_BYTES):
            pass


def test_what_was_measured_of_a_rank_is_kept_where_the_same_clocks_come_back(room: Callable[..., Room]) -> None:
    one = room(gpus=1)
    agent = one.agent()
    assert one.peer(iterations=100_000).hear()["accepted"]
    wait_until(lambda: samples(agent.rank()) > MEASURED, "enough is measured")
    part(one)
    wait_until(lambda: agent.rank() is not None, "the rank is known again")
    rank = agent.rank()
    assert rank is not None
    assert samples(rank) > MEASURED
    assert rank.control_time_s > 0
    wait_until(lambda: samples(agent.rank()) > samples(rank), "measuring goes on")
