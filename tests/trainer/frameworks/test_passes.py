"""Trainings without a pipeline, by the real things over gloo: what is told of an iteration is what ran in it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby, pairwise
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import pytest

from agent_double import AgentDouble, ConnectedRank
from framework_table import Row
from joulepath_trainer.frameworks.passes import Passes
from joulepath_trainer.identity import Work
from joulepath_trainer.observer import Observer
from joulepath_trainer.wire.page import Ending, MarkerEvent
from tests.trainer.conftest import Nursery, begun
from tests.trainer.frameworks.versions import assert_passes, iterations_that, of_the_table, told_by

STEPS = 10


@pytest.fixture(scope="module")
def passes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    yield from begun(tmp_path_factory, "tests.trainer.frameworks.pass_scenarios")


def run(passes: Nursery, scenario: str, world: int = 1, **arguments: Any) -> list[tuple[ConnectedRank, dict[str, Any]]]:
    """Of each rank what it told, and what it says itself."""
    with AgentDouble(passes.socket) as agent:
        ran = passes.run(scenario, world, **arguments)
        return list(zip(agent.ranks(world), ran, strict=True))


def broken_off(rank: ConnectedRank) -> set[int]:
    """Iterations that ended within an instruction."""
    entries = rank.entries()
    return {
        after.iteration
        for before, after in pairwise(entries)
        if after.event is MarkerEvent.STEP_END and before.event is MarkerEvent.BEGIN
    }


@pytest.mark.parametrize("microbatches", [1, 3])
@of_the_table("passes")
def test_each_forward_and_backward_is_told_in_its_order(passes: Nursery, row: Row, microbatches: int) -> None:
    told = run(passes, "train", 2, steps=STEPS, microbatches=microbatches, **row.options)
    for number, (rank, ran) in enumerate(told):
        place = rank.hello.pipeline
        assert (place.schedule, place.stage_count, place.microbatches) == ("NoPipeline", 1, microbatches)
        assert (place.stages, place.ranks) == ((0,), (number,))
        assert (rank.hello.data, rank.hello.data_parallel) == (number, 2)
        assert_passes(rank, ran["orders"])
        assert ran["orders"][-1] == [[kind, 0, m] for m in range(microbatches) for kind in "FB"]


def test_training_computes_the_same_with_an_agent_and_without(passes: Nursery) -> None:
    alone = passes.run("train", 2, steps=6, kind="ddp")
    observed = [ran for _, ran in run(passes, "train", 2, steps=6, kind="ddp")]
    assert alone == observed
    assert alone[0]["losses"][0] != alone[0]["losses"][-1]


def test_an_iteration_with_another_number_of_microbatches_is_left_out(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train", steps=STEPS, microbatches=2, ragged=6)
    assert_passes(rank, ran["orders"], 6)


def test_a_step_that_is_skipped_costs_one_iteration_its_record(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train_with_steps_that_are_skipped", steps=STEPS, skipped=6)
    assert ran["orders"][6] == [["F", 0, 0], ["B", 0, 0]] * 2, "of two passes, of which one was in vain"
    assert_passes(rank, ran["orders"], 6)
    assert 6 not in broken_off(rank)
    assert iterations_that(Ending.BROKEN, rank) == {6}, "which nothing but that tells"


def test_an_evaluation_behind_the_last_backward_is_marked_where_it_begins(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train", steps=STEPS, microbatches=2, evaluate_before=5)
    assert_passes(rank, ran["orders"], 5)
    assert 5 not in broken_off(rank)
    assert iterations_that(Ending.PARTED, rank) == iterations_that(Ending.BROKEN, rank) == {5}


def test_an_iteration_in_which_an_evaluation_begins_ends_there(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train", steps=STEPS, evaluate_after=5)
    assert_passes(rank, ran["orders"], 6)
    assert 6 in broken_off(rank)


def test_a_model_that_evaluates_in_each_iteration_is_told_all_the_same(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train_with_a_teacher", steps=STEPS)
    assert_passes(rank, ran["orders"])


@pytest.mark.parametrize("observed", [True, False])
def test_what_evaluates_a_model_is_compiled_once(passes: Nursery, observed: bool) -> None:
    if observed:
        ((rank, ran),) = run(passes, "train_compiled_with_a_teacher", steps=2 * STEPS)
        assert rank.hello.pipeline.schedule == "NoPipeline"
    else:
        (ran,) = passes.run("train_compiled_with_a_teacher", 1, steps=2 * STEPS)
    assert ran["compiled"] == 1


def test_an_iteration_that_is_compiled_is_told_and_nothing_of_ours_is_compiled(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train_compiled_whole", steps=STEPS)
    assert ran["compiled"] == []
    assert set(map(str, told_by(rank).values())) == {str([["F", 0, 0], ["B", 0, 0]])}


def test_models_that_take_turns_are_told_in_the_order_of_their_backwards(passes: Nursery) -> None:
    ((rank, _),) = run(passes, "train_two_models", steps=STEPS)
    assert rank.hello.pipeline.microbatches == 3
    found = told_by(rank)
    assert set(found) == set(range(3, STEPS))
    assert all(order == [[kind, 0, m] for m in range(3) for kind in "FB"] for order in found.values())


def test_a_backward_within_a_backward_is_a_part_of_it(passes: Nursery) -> None:
    ((rank, ran),) = run(passes, "train_within_checkpoints", steps=STEPS)
    assert ran["orders"][-1] == [["F", 0, 0], ["F", 0, 1], ["B", 0, 1]], "it computes the forward twice"
    assert set(map(str, told_by(rank).values())) == {str([["F", 0, 0], ["B", 0, 0]])}


@pytest.mark.parametrize("scenario", ["train_ever_differently", "train_by_closure"])
def test_backwards_whose_number_varies_are_told_as_one(passes: Nursery, scenario: str) -> None:
    ((rank, ran),) = run(passes, scenario, steps=STEPS)
    assert len({len(order) for order in ran["orders"]}) > 1
    assert (rank.hello.pipeline.schedule, rank.hello.pipeline.microbatches) == ("VaryingBackwards", 1)
    found = told_by(rank)
    assert set(found) == set(range(3, STEPS))
    assert set(map(str, found.values())) == {str([["F", 0, 0], ["B", 0, 0]])}


def test_of_a_backward_that_is_not_torchs_iterations_are_told(passes: Nursery) -> None:
    ((rank, _),) = run(passes, "train_by_another_engine", steps=STEPS)
    assert rank.hello.pipeline.schedule == "IterationsOnly"
    assert told_by(rank) == {number: [] for number in range(3, STEPS)}


class Notes:
    """Stands for the observer, which would connect to an agent."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def begin_step(self, work: Work) -> bool:
        self.told.append((work.pipeline.schedule, work.pipeline.microbatches))
        return True

    def evaluate(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ([7, 2, 2] + [2] * 9, ["NoPipeline 2"]),
        ([2, 2, 2] + [2, 2, 2, 2, 3] * 4, ["NoPipeline 2"]),
        ([2, 2, 2] + [3] * 9, ["NoPipeline 2", "NoPipeline 3"]),
        ([2, 2, 2] + [2, 3] * 8, ["NoPipeline 2", "VaryingBackwards 1"]),
        ([2, 2, 3] + [3] * 9, ["VaryingBackwards 1", "NoPipeline 3"]),
        ([2, 2, 3] + [3, 3, 3, 2] * 9, ["VaryingBackwards 1"]),
        ([0, 0, 0] + [0] * 9, ["IterationsOnly 1"]),
        ([2, 2, 2] + [0] * 9, ["NoPipeline 2", "IterationsOnly 1"]),
        (
            [1] * 9 + [2] * 9 + [3] * 9 + [4] * 9 + [5] * 90,
            [*(f"NoPipeline {count}" for count in range(1, 5)), "VaryingBackwards 1"],
        ),
    ],
)
def test_what_is_told_follows_the_number_of_backwards_and_not_each_exception(
    counts: list[int], told: list[str]
) -> None:
    notes = Notes()
    passes = Passes(cast(Observer, notes))
    for number, count in enumerate(counts):
        for _ in range(count):
            passes.run(lambda: None)
        passes.turn("cpu", observed=number > 1)
    assert [f"{schedule} {microbatches}" for (schedule, microbatches), _ in groupby(notes.told)] == told


def test_of_optimizers_that_step_within_a_backward_iterations_are_told() -> None:
    notes = Notes()
    passes = Passes(cast(Observer, notes))
    for number in range(20):
        passes.run(partial(passes.turn, "cpu", observed=number > 1))
    assert set(notes.told) == {("IterationsOnly", 1)}


def test_what_another_thread_does_is_no_part_of_an_iteration() -> None:
    notes = Notes()
    ended: list[bool] = []
    notes.end_step = ended.append  # type: ignore[attr-defined]
    passes = Passes(cast(Observer, notes))

    class Module:
        def eval(self) -> None:
            pass

    passes.observe_modules(cast(ModuleType, SimpleNamespace(Module=Module, torch=None)))

    def another() -> None:
        passes.run(lambda: None)
        Module().eval()

    with ThreadPoolExecutor(1) as elsewhere:
        for number in range(20):
            passes.run(lambda: None)
            elsewhere.submit(another).result()
            passes.turn("cpu", observed=number > 1)
    assert set(notes.told) == {("NoPipeline", 1)}
    assert len(ended) > 10
    assert all(ended)


def test_what_goes_wrong_in_a_backward_is_the_trainings_and_what_goes_wrong_in_ours_is_not() -> None:
    notes = Notes()
    passes, off = Passes(cast(Observer, notes)), list[Exception]()
    with pytest.raises(ZeroDivisionError):
        passes.run(lambda: 1 // 0)
    notes.switch_off = off.append  # type: ignore[attr-defined]
    notes.begin_instruction = lambda *_: 1 // 0  # type: ignore[attr-defined]
    for _ in range(3):
        passes.run(lambda: None)
    with pytest.raises(ZeroDivisionError):
        passes.turn("cpu", observed=True)  # within what the optimizer's hook guards
    assert passes.run(lambda: 7) == 7
    assert {type(one) for one in off} == {ZeroDivisionError}
