"""Real pipelines over gloo, observed through the hook."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from joulepath_trainer.wire import Event
from trainer.agent_double import AgentDouble, Rank

if TYPE_CHECKING:
    from trainer.conftest import Nursery

WORLD, MICROBATCHES, STEPS = 4, 4, 6


def one_f_one_b(rank: int) -> list[str]:
    warm_up = min(MICROBATCHES, WORLD - rank)
    order = [f"F{m}" for m in range(warm_up)]
    for m in range(MICROBATCHES):
        order.append(f"B{m}")
        if warm_up + m < MICROBATCHES:
            order.append(f"F{warm_up + m}")
    return order


def gpipe(_: int) -> list[str]:
    return [f"{kind}{m}" for kind in "FB" for m in range(MICROBATCHES)]


def check_markers(rank: Rank, order: list[str]) -> None:
    entries = rank.entries()
    assert rank.marker == len(entries)
    for iteration, group in groupby(entries, lambda entry: entry.iteration):
        events = [(e.event, f"{e.kind}{e.microbatch}") for e in group]
        chunks = [(event, name) for name in order for event in (Event.BEGIN, Event.END)]
        assert events == [(Event.STEP_BEGIN, "0"), *chunks, (Event.STEP_END, "0")], iteration


def check_records(rank: Rank, order: list[str]) -> None:
    numbers = sorted({entry.iteration for entry in rank.entries()})
    assert [record.iteration for record in rank.records] == numbers
    assert numbers[-1] == STEPS - 1
    for record in rank.records:
        assert [f"{span.kind}{span.microbatch}" for span in record.spans] == order
        times = [time for span in record.spans for time in (span.begin_s, span.end_s)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= record.end_s
        assert record.period_s >= record.end_s or record.iteration == STEPS - 1


@pytest.mark.parametrize(("schedule", "order"), [("Schedule1F1B", one_f_one_b), ("ScheduleGPipe", gpipe)])
def test_markers_and_records_are_what_each_rank_ran(nursery: Nursery, schedule: str, order: object) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", WORLD, steps=STEPS, schedule=schedule)
        ranks = agent.ranks(WORLD)
    for number, rank in enumerate(ranks):
        assert rank.hello.rank == rank.hello.local_rank == number
        assert rank.hello.markers == "host"
        assert rank.hello.gpu_uuid is None
        assert rank.hello.world_size == WORLD
        assert rank.hello.pipeline.schedule == schedule
        assert rank.hello.pipeline.stage_count == WORLD
        assert rank.hello.pipeline.microbatches == MICROBATCHES
        assert rank.hello.pipeline.stages == (number,)
        assert rank.hello.pipeline.ranks == (0, 1, 2, 3)
        check_markers(rank, order(number))  # type: ignore[operator]
        check_records(rank, order(number))  # type: ignore[operator]
