"""What a rank can make the agent remember and compute, and that no other rank pays for it."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

from joulepath_clocks.peers.budget import BUDGET
from joulepath_crds import Blocks, RankState
from tests.agent.room import Room, wait_until
from tests.agent.test_agent import LOW_MHZ, ORDER, goes_on, plan
from tests.agent.test_metrics import get

MOST_GROWTH_BYTES = 16 * 2**20


@pytest.mark.slow
@pytest.mark.parametrize("size", ["wide", "deep"])
def test_records_as_large_as_can_be_cost_some_memory_and_no_other_rank_its_plan(
    room: Callable[..., Room], size: str
) -> None:
    made = room(time_scale=0.1)
    agent = made.agent({"a": made.gpus.uuids[:1], "b": made.gpus.uuids[1:]})
    assert made.peer(iterations=100_000).hear()["accepted"]
    agent.plans(plan(blocks=Blocks(iterations=8, pairs=0)))
    wait_until(lambda: made.clock() == LOW_MHZ, "the honest rank's plan is in force")
    before = agent.resident_bytes()
    hostile = made.hostile("b", size, 1)
    assert "true" in hostile.hear()
    assert hostile.hear() == "told"
    goes_on(agent)
    wait_until(lambda: (r := agent.rank(1)) is not None and r.iteration == 249, "the hostile rank is followed")
    goes_on(agent)
    assert agent.resident_bytes() - before < MOST_GROWTH_BYTES
    # The guard may have asked, as the machine was busy with reading.
    wait_until(lambda: (r := agent.rank(0)) is not None and r.state is RankState.ENFORCING, "the plan goes on")
    wait_until(lambda: made.clock() == LOW_MHZ, "at its clock")
    rank, other = agent.rank(0), agent.rank(1)
    assert rank is not None
    assert rank.order == ORDER
    assert other is not None
    assert other.iteration_time_s < 60
    over = [line for line in get(agent, "/metrics").splitlines() if line.startswith("joulepath_ranks_over_budget{")]
    assert [line.endswith(" 1.0") for line in over if 'reason="instructions"' in line] == [size == "wide"]
    assert ("OverBudget: it tells of iterations of 8000 instructions" in other.reason) == (size == "wide")


@pytest.mark.slow
def test_an_iteration_of_thousands_of_instructions_is_measured_whole(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.001)
    agent = made.agent()
    order = [f"{kind}{microbatch}" for microbatch in range(1500) for kind in "FB"]
    assert made.peer(order=order, iterations=100_000, waits_s=[0.0, 0.0, 1e-5]).hear()["accepted"]
    wait_until(lambda: (r := agent.rank()) is not None and len(r.timeline) == len(order), "it is measured")
    rank = agent.rank()
    assert rank is not None
    assert list(rank.order) == order


def test_records_are_read_at_the_pace_of_the_budget_and_the_rank_is_served_on(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent = made.agent({"a": made.gpus.uuids[:1], "b": made.gpus.uuids[1:]})
    assert made.peer(iterations=100_000).hear()["accepted"]
    wait_until(lambda: (r := agent.rank()) is not None and r.iteration > 3, "the honest rank is followed")
    chatty = made.hostile("b", "chatty", 1)
    assert "true" in chatty.hear()
    sent, took_s = chatty.hear()
    queued = 2 * (1 << 20) / 512  # what a socket with so large a buffer holds, each with the kernel's own part
    read = (BUDGET.record_burst_bytes + BUDGET.record_bytes_per_s * (took_s + 1.0)) / BUDGET.least_record_bytes
    assert sent <= read + queued
    goes_on(agent)
    assert agent.rank(1) is not None
    chatty.send(signal.SIGKILL)
    wait_until(lambda: agent.rank(1) is None, "the rank is gone, though nothing is read from it for a while")
