"""A node with locked clocks, with an agent or without one, and what is waited for there."""

from __future__ import annotations

from collections.abc import Callable
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from joulepath_warden.journal import EVERY_GPU, Journal
from tests.agent.room import LocalAgent, Process, Room, RunningWarden, wait_until
from tests.agent.test_agent import LOW_MHZ, held
from virtual_gpus.fixtures import run_program

__all__ = ["NVML_ERROR_UNKNOWN", "Held", "agentless", "is_ready", "is_reset", "locked"]

NVML_ERROR_UNKNOWN = 999
Held = tuple[Room, RunningWarden, LocalAgent, Process]


@pytest.fixture
def locked(room: Callable[..., Room]) -> Callable[[], Held]:
    """Factory of a warden and an agent that holds a rank's GPU locked."""

    def make() -> Held:
        made = room(time_scale=0.1)
        warden, agent = made.warden(), made.agent()
        peer = made.peer(iterations=100_000)
        assert peer.hear()["accepted"]
        agent.plans(held())
        wait_until(lambda: made.clock() == LOW_MHZ, "the clock is locked")
        assert made.named() == [made.gpus.uuids[0]]
        return made, warden, agent, peer

    return make


@pytest.fixture
def agentless(room: Callable[..., Room]) -> Callable[..., Room]:
    """Factory of a node on which somebody has locked GPUs, named in the journal unless told otherwise."""

    def make(*gpus: int, journal: bool = True) -> Room:
        made = room(time_scale=0.1)
        made.state_dir.mkdir()
        if journal:
            written = Journal(made.state_dir)
            written.remove(EVERY_GPU)
            written.add(*(made.gpus.uuids[gpu] for gpu in gpus))
        for gpu in gpus:
            assert run_program(made.gpus, "set_clock_error", gpu=gpu)["error"] == 0
            assert made.clock(gpu) == 900
        return made

    return make


def is_reset(made: Room, *gpus: int) -> None:
    """Waits until these GPUs are at default clocks and the journal names none of them."""
    wait_until(lambda: not any(made.clock(gpu) for gpu in gpus), "the clocks are reset")
    uuids = {made.gpus.uuids[gpu] for gpu in gpus}
    wait_until(lambda: not uuids.intersection(made.named()), "the journal names them no more")


def is_ready(agent: LocalAgent) -> bool:
    """Whether the agent says that it is."""
    try:
        with urlopen(f"http://127.0.0.1:{agent.health_port}/readyz", timeout=10):
            return True
    except HTTPError:
        return False
