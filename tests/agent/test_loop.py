"""A loop that tells of itself, as a process of its own, by the real clocks and agent: recorded, and played."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from joulepath_crds import Blocks, RankState, StagePlan
from tests.agent.room import ROOT, LocalAgent, Room, wait_until
from tests.agent.test_agent import LOW_MHZ, plan
from tests.trainer.conftest import BOOTSTRAP

ORDER = ("F0", "F1", "F2", "B0", "B1", "B2")


@contextmanager
def loop(made: Room, *microbatches: int, rank: int = 0, world: int = 1, injected: bool = True) -> Iterator[None]:
    environment = {
        **made.gpus.environment,
        "PYTHONPATH": f"{BOOTSTRAP}:{ROOT / 'lab'}" if injected else str(ROOT / "lab"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "POD_UID": "a",
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
    }
    if injected:
        environment["JOULEPATH_SOCKET"] = str(made.socket)
    command = [sys.executable, str(Path(__file__).with_name("loop.py")), *map(str, microbatches)]
    told = made.state_dir.with_name(f"loop{rank}")
    with told.open("w") as output, subprocess.Popen(command, env=environment, stdout=output, cwd="/") as process:
        try:
            wait_until(lambda: told.stat().st_size > 0, "it trains")
            yield
            assert process.poll() is None, "it trains on"
        finally:
            process.kill()


def test_a_loop_is_recorded_and_its_plan_is_played(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    with loop(made, 3):
        wait_until(lambda: (r := agent.rank()) is not None and len(r.timeline) == len(ORDER), "it is measured")
        rank = agent.rank()
        assert rank is not None
        assert rank.order == ORDER
        assert (rank.stages, rank.stage_count, rank.microbatches, rank.schedule) == ((0,), 1, 3, "Recorded")
        assert rank.gpu_uuid == made.gpus.uuids[0]
        agent.plans(planned(agent, ORDER))
        wait_until(lambda: made.clock() == LOW_MHZ, "its plan is in force")


def planned(agent: LocalAgent, order: tuple[str, ...], name: str = "one") -> dict[str, object]:
    """A plan of low clocks for the attempt that is reported."""
    stage = StagePlan(stage=0, order=order, clocks_mhz=(LOW_MHZ,) * len(order), durations_s=(0.02,) * len(order))
    attempt = agent.report().jobs[0].attempt
    return plan(name, stages=(stage,), attempt=attempt, blocks=Blocks(iterations=8, pairs=0))


def test_ranks_of_a_pipeline_that_tell_of_themselves_are_told_apart(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    with loop(made, 2, rank=0, world=2), loop(made, 2, rank=1, world=2):
        for number in (0, 1):
            wait_until(lambda n=number: bool((r := agent.rank(n)) and r.order), "it is measured")  # type: ignore[misc]
            rank = agent.rank(number)
            assert rank is not None
            assert (rank.stages, rank.coordinates.pipeline) == ((number,), number)
            assert rank.gpu_uuid == made.gpus.uuids[number]


def test_a_pipeline_whose_shape_changes_plays_the_plan_of_before_no_more(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    agent = made.agent()
    with loop(made, 3, 4):
        wait_until(lambda: bool((r := agent.rank()) and r.order), "it is measured")
        agent.plans(planned(agent, ORDER))
        wait_until(lambda: made.clock() == LOW_MHZ, "its plan is in force")
        wait_until(lambda: (r := agent.rank()) is not None and r.microbatches == 4, "the new shape is told")
        wait_until(lambda: (r := agent.rank()) is not None and len(r.order) == 8, "and recorded")
        wait_until(lambda: made.clock() == 0, "the GPU runs default clocks")
        wait_until(
            lambda: (r := agent.rank()) is not None and r.state is not RankState.ENFORCING and not r.applied_hash,
            "the rank says so",
        )
        wait_until(lambda: (r := agent.rank()) is not None and "OrderMismatch" in r.reason, "and why")
        order = tuple(f"{kind}{number}" for kind in "FB" for number in range(4))
        agent.plans(planned(agent, order, "two"))
        wait_until(lambda: made.clock() == LOW_MHZ, "a plan of the new shape is played")


def test_a_loop_without_the_trainer_trains(room: Callable[..., Room]) -> None:
    made = room(time_scale=0.1)
    with loop(made, 3, injected=False):
        pass
