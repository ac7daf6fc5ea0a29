"""Another process sets or resets the clock of a GPU that the agent holds, through NVML as nvidia-smi does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from joulepath_crds import Purpose, Sweep
from tests.agent.room import LocalAgent, Process, Room, wait_until
from tests.agent.test_agent import plan
from tests.agent.test_metrics import get
from virtual_gpus.fixtures import run_program

LOW_MHZ = 900
Held = Callable[..., tuple[Room, LocalAgent, Process]]


@pytest.fixture
def held(room: Callable[..., Room]) -> Held:
    """Factory: an agent that holds a rank's GPU at one clock for long."""

    def make(*arguments: str) -> tuple[Room, LocalAgent, Process]:
        made = room(gpus=1, time_scale=0.1)
        agent = made.agent(None, 2, *arguments)
        peer = made.peer(iterations=100_000)
        assert peer.hear()["accepted"]
        wait_until(lambda: agent.report().gpus[0].settled_clock_mhz is not None, "it is known where the GPU settles")
        sweep = Sweep(clocks_mhz=(LOW_MHZ,) * 400, iterations_per_block=100)
        agent.plans(plan("held", purpose=Purpose.SWEEP, stages=(), sweep=sweep, activate_at=0))
        wait_until(lambda: made.clock() == LOW_MHZ, "the clock is held")
        return made, agent, peer

    return make


def answers(agent: LocalAgent) -> dict[str, float]:
    """How often somebody else's clock was met, by what was done."""
    families = {family.name: family for family in text_string_to_metric_families(get(agent, "/metrics"))}
    return {one.labels["answer"]: one.value for one in families["joulepath_foreign_clocks"].samples}


@pytest.mark.slow
def test_a_clock_that_another_process_sets_or_resets_is_ordered_again_three_times_and_then_yielded(held: Held) -> None:
    made, agent, _ = held()
    for times, theirs_mhz in ((1, 0), (2, 600), (3, 1200)):
        run_program(made.gpus, "set_clocks", targets=[theirs_mhz])
        wait_until(lambda times=times: answers(agent) == {"reasserted": times, "yielded": 0}, "it is noticed")  # type: ignore[misc]
        wait_until(lambda: made.clock() == LOW_MHZ, "the clock is ordered again")
    rank = agent.rank()
    assert rank is not None
    assert rank.reason.startswith(f"ForeignClock: {LOW_MHZ} MHz were ordered, and the SM clock ran at ")
    assert rank.reason.endswith("it was ordered again")
    run_program(made.gpus, "set_clocks", targets=[600])
    wait_until(lambda: answers(agent) == {"reasserted": 3, "yielded": 1}, "it is yielded")
    wait_until(lambda: made.clock() == 0 and made.named() == [], "the GPU is at its default clocks and given back")
    assert agent.counts()["leaseEnds"]["ForeignClock"] >= 1
    run_program(made.gpus, "set_clocks", targets=[600])
    before = agent.rank()
    assert before is not None
    wait_until(lambda: (r := agent.rank()) is not None and r.iteration > before.iteration + 20, "the job goes on")
    assert made.clock() == 600, "whoever wants it keeps it"
    assert before.reason.startswith("ForeignClock: ")


@pytest.mark.slow
def test_a_site_that_yields_has_its_clock_at_once(held: Held) -> None:
    made, agent, _ = held("--on-foreign-clock", "yield")
    run_program(made.gpus, "set_clocks", targets=[1200])
    wait_until(lambda: answers(agent) == {"reasserted": 0, "yielded": 1}, "it is yielded")
    wait_until(lambda: made.clock() == 0, "nothing of ours is left")
