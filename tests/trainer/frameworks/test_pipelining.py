"""Real pipelines over gloo, observed through the hook."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from agent_double import AgentDouble, ConnectedRank
from framework_table import Row
from joulepath_agent.measuring.spans import instruction_of
from joulepath_trainer.wire.page import Ending, MarkerEvent
from joulepath_trainer.wire.protocol import PAIR
from tests.trainer.frameworks.versions import assert_told, iterations_that, of_the_table

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery

WORLD, MICROBATCHES, STEPS = 4, 4, 6
Order = Callable[[int], list[str]]


def one_f_one_b(rank: int, world: int = WORLD) -> list[str]:
    warm_up = min(MICROBATCHES, world - rank)
    order = [f"F{m}" for m in range(warm_up)]
    for m in range(MICROBATCHES):
        order.append(f"B{m}")
        if warm_up + m < MICROBATCHES:
            order.append(f"F{warm_up + m}")
    return order


def gpipe(_: int) -> list[str]:
    return [f"{kind}{m}" for kind in "FB" for m in range(MICROBATCHES)]


def check_markers(rank: ConnectedRank, order: list[str], evaluated_after: int = -1) -> None:
    entries = rank.entries()
    assert rank.marker == len(entries)
    for iteration, group in groupby(entries, lambda entry: entry.iteration):
        events = [(e.event, f"{e.kind}{e.microbatch}") for e in group]
        chunks = [(event, name) for name in order for event in (MarkerEvent.BEGIN, MarkerEvent.END)]
        ends = [(MarkerEvent.STEP_END, "0"), (MarkerEvent.STEP_END, "2")][: 1 + (iteration == evaluated_after)]
        assert events == [(MarkerEvent.STEP_BEGIN, "0"), *chunks, *ends], iteration


def check_records(rank: ConnectedRank, order: list[str], steps: int = STEPS) -> None:
    # All but rank 0 learn the attempt's number at their second step.
    assert [record.iteration for record in rank.records] == list(range(min(rank.hello.rank, 1), steps))
    for record in rank.records:
        assert [f"{span.kind}{span.microbatch}" for span in record.spans] == order
        times = [time for span in record.spans for time in (span.begin_s, span.end_s)]
        assert times == sorted(times)
        assert times[0] >= 0
        assert times[-1] <= record.end_s
        assert (record.period_s == 0) == (record.iteration == steps - 1)
        assert record.period_s in (0, max(record.period_s, record.end_s))


@pytest.mark.parametrize(("schedule", "order"), [("Schedule1F1B", one_f_one_b), ("ScheduleGPipe", gpipe)])
def test_markers_and_records_are_what_each_rank_ran(nursery: Nursery, schedule: str, order: Order) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", WORLD, steps=STEPS, schedule=schedule)
        ranks = agent.ranks(WORLD)
    for number, rank in enumerate(ranks):
        assert rank.hello.rank == rank.hello.local_rank == number
        assert (rank.hello.markers, rank.hello.gpu_uuid, rank.hello.world_size) == ("host", None, WORLD)
        pipeline = rank.hello.pipeline
        assert (pipeline.schedule, pipeline.stage_count, pipeline.microbatches) == (schedule, WORLD, MICROBATCHES)
        assert (pipeline.stages, pipeline.ranks) == ((number,), (0, 1, 2, 3))
        check_markers(rank, order(number))
        check_records(rank, order(number))
    assert len({rank.hello.attempt for rank in ranks}) == 1


@of_the_table("torch")
def test_each_schedule_is_told_as_torch_ran_it(nursery: Nursery, row: Row) -> None:
    with AgentDouble(nursery.socket) as agent:
        orders = nursery.run("train_noting", 2, steps=STEPS, **row.options)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        assert set(rank.hello.pipeline.stages) == {stage for _, stage, _ in orders[number][-1]}
        assert len(rank.records) >= STEPS - 1
        assert_told(rank, orders[number])


def test_optimizers_that_step_within_backwards_end_no_iteration(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_stepping_within_backwards", 2, steps=STEPS)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        check_records(rank, one_f_one_b(number, 2))


@pytest.mark.parametrize(("schedule", "stages_of_rank"), [("Schedule1F1B", 1), ("ScheduleInterleaved1F1B", 2)])
def test_the_loss_is_a_part_of_the_last_stage_s_forward(nursery: Nursery, schedule: str, stages_of_rank: int) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", 2, steps=4, schedule=schedule, stages_of_rank=stages_of_rank, loss_s=0.05)
        ranks = agent.ranks(2)
    last = 2 * stages_of_rank - 1
    for rank in ranks:
        spans = [span for record in rank.records if record.iteration for span in record.spans]
        for span in spans:
            if span.stage == last and span.kind == "F":
                assert span.end_s - span.begin_s >= 0.05
        forwards = [span.end_s - span.begin_s for span in spans if span.kind == "F" and span.stage != last]
        assert not forwards or min(forwards) < 0.05, "only there"


@pytest.mark.parametrize("evaluate", [False, True])
def test_what_lies_between_two_steps_of_the_optimizer_is_one_iteration(nursery: Nursery, evaluate: bool) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_accumulating", 2, rounds=[3] * 9, evaluate=evaluate)
        ranks = agent.ranks(2 * 2)
    latest = {rank.hello.rank: rank for rank in ranks if rank.hello.pipeline.microbatches == 3 * MICROBATCHES}
    assert sorted(latest) == [0, 1]
    for number, rank in latest.items():
        assert len(rank.records) >= 4
        order = one_f_one_b(number, 2)
        for record in rank.records:
            told = [f"{span.kind}{span.microbatch}" for span in record.spans]
            shift = [(name[0], int(name[1:]) + MICROBATCHES * each) for each in range(3) for name in order]
            assert told == [f"{kind}{microbatch}" for kind, microbatch in shift]


@pytest.mark.parametrize(("schedule", "stages_of_rank"), [("Schedule1F1B", 1), ("ScheduleInterleaved1F1B", 2)])
def test_stages_that_are_sharded_are_told_as_those_that_are_not(
    nursery: Nursery, schedule: str, stages_of_rank: int
) -> None:
    """FSDP gathers and reduces between the instructions: these are gaps."""
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", 2, steps=STEPS, schedule=schedule, stages_of_rank=stages_of_rank)
        plain = [_spans(rank)[-1] for rank in agent.ranks(2)]
    with AgentDouble(nursery.socket) as agent:
        places = nursery.run("train_sharded", 4, steps=STEPS, schedule=schedule, stages_of_rank=stages_of_rank)
        ranks = agent.ranks(4)
    for rank, ((index, replica),) in zip(ranks, places, strict=True):
        assert (rank.hello.data, rank.hello.data_parallel) == (replica, 2)
        assert rank.records
        assert all(spans == plain[index] for spans in _spans(rank))


def test_an_iteration_of_fewer_rounds_is_not_told_and_more_are_learnt(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_accumulating", 2, rounds=[2] * 8 + [1] + [2] * 3 + [4] * 6)
        ranks = agent.ranks(2 * 3)
    told = {(rank.hello.rank, rank.hello.pipeline.microbatches): rank for rank in ranks}
    assert set(told) == {(rank, MICROBATCHES * rounds) for rank in (0, 1) for rounds in (1, 2, 4)}
    for (_, microbatches), rank in told.items():
        assert all(len(record.spans) == 2 * microbatches for record in rank.records)


def test_functions_of_the_user_s_in_a_schedule_are_told_as_what_they_take_the_place_of(nursery: Nursery) -> None:
    told = []
    for scenario, options in (
        ("train", {"schedule": "ScheduleInterleaved1F1B", "stages_of_rank": 2}),
        ("train_by_custom_functions", {}),
    ):
        with AgentDouble(nursery.socket) as agent:
            nursery.run(scenario, 2, steps=STEPS, **options)
            told.append([_spans(rank) for rank in agent.ranks(2)])
    plain, custom = told
    assert custom == plain
    assert [len(records) for records in custom] == [STEPS, STEPS - 1]


def _spans(rank: ConnectedRank) -> list[list[tuple[str, int, int]]]:
    return [[(span.kind, span.stage, span.microbatch) for span in record.spans] for record in rank.records]


@pytest.mark.parametrize("threads", [False, True])
def test_what_a_function_of_the_user_s_runs_interleaved_is_told_as_a_pair(nursery: Nursery, threads: bool) -> None:
    with AgentDouble(nursery.socket) as agent:
        ran = nursery.run("train_by_a_function_for_both", 2, steps=STEPS, threads=threads)
        ranks = agent.ranks(2)
    for rank, of_all in zip(ranks, ran, strict=True):
        pairs = of_all[: len(of_all) // STEPS]
        assert pairs
        assert of_all == pairs * STEPS
        assert len(rank.records) >= STEPS - 1
        for record in rank.records:
            told = [span for span in record.spans if span.kind == PAIR]
            assert [[span.stage, span.microbatch, *span.back] for span in told] == pairs
            ones = [half for span in record.spans for half in instruction_of(span).halves]
            for stage in rank.hello.pipeline.stages:
                for microbatch in range(MICROBATCHES):
                    kinds = [one.kind for one in ones if (one.stage, one.microbatch) == (stage, microbatch)]
                    assert kinds in (["F", "B"], ["F", "I", "W"])
            times = [time for span in record.spans for time in (span.begin_s, span.end_s)]
            assert times == sorted(times)


def test_a_rank_with_several_stages_and_split_backwards_tells_them_apart(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", 2, steps=STEPS, schedule="ScheduleInterleavedZeroBubble", stages_of_rank=2)
        ranks = agent.ranks(2)
    for number, rank in enumerate(ranks):
        assert rank.hello.pipeline.stages == (number, number + 2)
        for record in rank.records:
            ran = [(span.kind, span.stage, span.microbatch) for span in record.spans]
            assert len(set(ran)) == len(ran)
            for stage in rank.hello.pipeline.stages:
                for microbatch in range(MICROBATCHES):
                    kinds = [kind for kind, *where in ran if where == [stage, microbatch]]
                    assert kinds in (["F", "B"], ["F", "I", "W"])
        assert "W" in {span.kind for span in rank.records[-1].spans}


def test_an_evaluation_in_each_iteration_is_a_part_of_them(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_accumulating", 2, rounds=[1] * 9, evaluate=True)
        ranks = agent.ranks(2)
    for rank in ranks:
        periods_s = {record.iteration: record.period_s for record in rank.records}
        assert all(periods_s[number] > 0 for number in range(3, 8))


def test_an_evaluation_is_not_counted_nor_a_part_of_a_period_and_marked_where_it_begins(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train", WORLD, steps=STEPS, evaluate_after=3)
        ranks = agent.ranks(WORLD)
    for number, rank in enumerate(ranks):
        check_markers(rank, one_f_one_b(number), evaluated_after=3)
        check_records(rank, one_f_one_b(number))


def test_an_evaluation_between_the_rounds_of_an_iteration_is_marked_there(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_accumulating", 2, rounds=[2] * 9, evaluated=[6])
        ranks = agent.ranks(2 * 2)
    for rank in ranks:
        if rank.hello.pipeline.microbatches == 2 * MICROBATCHES:
            (broken,) = iterations_that(Ending.PARTED, rank)
            events = [entry.event for entry in rank.entries() if entry.iteration == broken]
            assert events.index(MarkerEvent.STEP_END) == 1 + 2 * 2 * MICROBATCHES, "after the first round"
            assert broken not in {record.iteration for record in rank.records}


@pytest.mark.parametrize("rounds", [1, 2])
def test_of_two_pipelines_that_train_in_turn_one_is_told_up_to_where_the_other_begins(
    nursery: Nursery, rounds: int
) -> None:
    """The first, or where only that one accumulates gradients, which is known a step later, the other one."""
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_in_turns", 2, steps=9, rounds=rounds)
        ranks = agent.ranks(2 * rounds)
    for number in range(2):
        *_, told = (rank for rank in ranks if rank.hello.rank == number)
        assert told.hello.pipeline.microbatches == MICROBATCHES
        last = max(record.iteration for record in told.records)
        assert {record.iteration for record in told.records} >= {last - 1, last}
        assert {len(record.spans) for record in told.records} == {2 * MICROBATCHES}
        assert iterations_that(Ending.PARTED, told) >= {last - 2, last - 1}, "nothing comes after the last one, perhaps"


def test_a_pipeline_that_trains_between_the_rounds_of_another_is_no_round_of_it(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        nursery.run("train_in_turns", 2, steps=12, rounds=2, interleaved=True)
        ranks = agent.ranks(4)
    told = [rank for rank in ranks if rank.hello.pipeline.microbatches == 2 * MICROBATCHES]
    assert len(told) == 2
    for rank in told:
        assert len(rank.records) >= 3
        assert {len(record.spans) for record in rank.records} == {2 * 2 * MICROBATCHES}


def test_a_step_that_a_grad_scaler_skips_parts_the_iteration_from_the_next(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        outcomes = nursery.run("train_by_a_grad_scaler", 2, steps=STEPS + 2, skipped=3)
        ranks = agent.ranks(2)
    assert outcomes == [[number != 3 for number in range(STEPS + 2)]] * 2, "whether the optimizer stepped"
    for rank in ranks:
        # The round of the step that follows belongs to the same one of the optimizer's, and the one after that is
        # taken for an iteration of two rounds.
        assert iterations_that(Ending.PARTED, rank) == {3, 4}
        assert {record.iteration for record in rank.records if not record.period_s} == {STEPS}


def test_training_computes_the_same_with_the_hook_without_it_and_without_an_agent(nursery: Nursery) -> None:
    unhooked = nursery.run("train", 2, steps=4, hooked=False)
    without_agent = nursery.run("train", 2, steps=4)
    with AgentDouble(nursery.socket) as agent:
        observed = nursery.run("train", 2, steps=4)
        agent.ranks(2)
    assert unhooked == without_agent == observed
    assert len(unhooked[1][3]) == MICROBATCHES


def test_an_exception_in_the_model_reaches_the_training_loop_and_leaves_no_record(nursery: Nursery) -> None:
    with AgentDouble(nursery.socket) as agent:
        outcomes = nursery.run("train_once_failing", 1, steps=STEPS, failing=3)
        (rank,) = agent.ranks(1)
    assert outcomes == [["", "", "", "RuntimeError from KeyError", "", ""]]
    assert [record.iteration for record in rank.records] == [0, 1, 2, 4, 5]
    assert rank.records[-3].period_s > 0
    last = [entry.event for entry in rank.entries() if entry.iteration == 3]
    assert last == [MarkerEvent.STEP_BEGIN, MarkerEvent.BEGIN, MarkerEvent.END, MarkerEvent.STEP_END]
    assert iterations_that(Ending.BROKEN, rank) == {3}
    assert not iterations_that(Ending.PARTED, rank)


def test_wrapped_methods_keep_their_signatures(nursery: Nursery) -> None:
    assert nursery.run("signatures", 1) == [[True, True, True]]


@pytest.mark.parametrize("names", [["dp", "pp", "tp"], ["pp", "dp", "tp"]])
def test_a_device_mesh_tells_the_coordinates(nursery: Nursery, names: list[str]) -> None:
    with AgentDouble(nursery.socket) as agent:
        placed = nursery.run("train_on_mesh", 4, names=names, sizes=[1, 2, 2] if names[0] == "dp" else [2, 1, 2])
        ranks = agent.ranks(4)
    for (pipeline, coordinates), rank in zip(placed, ranks, strict=True):
        assert list(rank.hello.pipeline.ranks) == pipeline
        assert [rank.hello.data, rank.hello.tensor] == coordinates
        assert (rank.hello.data_parallel, rank.hello.tensor_parallel) == (1, 2)
