"""What pipelines of any framework have in common, told to an observer that takes notes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, cast
from weakref import ref

import pytest

from joulepath_trainer.frameworks.rounds import Skips
from joulepath_trainer.frameworks.steps import Steps
from joulepath_trainer.identity import Work
from joulepath_trainer.observer import Observer
from joulepath_trainer.wire.messages import PipelinePlace


class Notes:
    """Stands for the observer, which would connect to an agent."""

    off = False

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.ended = 0

    def begin_step(self, work: Work) -> bool:
        self.told.append(("step", work.pipeline.microbatches))
        return True

    def end_step(self, whole: bool, told: bool) -> None:
        self.told.append("not whole" if not whole else "whole" if told else "untold")

    def part(self) -> None:
        self.told.append("parts")

    def begin_instruction(self, kind: str, stage: int, microbatch: int) -> tuple[str, int, int, int]:
        self.told.append(f"{kind}{microbatch}")
        return kind, stage, microbatch, 0

    def end_instruction(self, token: object) -> None:
        self.ended += 1

    def restart(self) -> None:
        self.told.append("restart")

    def evaluate(self) -> None:
        self.told.append("evaluates")

    def switch_off(self, error: Exception) -> None:
        self.told.append(repr(error))


def work(microbatches: int) -> Work:
    return Work(PipelinePlace("S", 2, microbatches, (0,), (0, 1)), "cpu")


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def steps(notes: Notes) -> Steps:
    return Steps(cast(Observer, notes), Skips(), lambda: None)


def test_steps_of_another_pipeline_are_left_alone_until_there_are_some_without_one_of_the_first(
    notes: Notes, steps: Steps
) -> None:
    for microbatches in (4, 2, 4, 2, 3, 2, 2, 2, 2):
        assert steps.run(partial(work, microbatches), lambda: 7) == 7
    begun = [one for one in notes.told if one != "whole"]
    step, parted = ("step", 4), "parts"
    assert begun == [step, parted, step, *[parted] * 3, "restart", *[("step", 2)] * 3]


class Model:
    """Something that is trained."""


def test_of_pipelines_that_take_turns_one_is_observed_in_the_end(notes: Notes, steps: Steps) -> None:
    models = [Model(), Model()]
    one, other = (replace(work(4), model=ref(model)) for model in models)

    def train(turns: int) -> int:
        for _ in range(20):
            for trained in (one, other):
                for _ in range(turns):
                    steps.run(partial(lambda trained: trained, trained), lambda: None)
        return notes.told.count("restart")

    assert train(1) == 0
    assert train(4) == 2, "the other one's third step in a row, and the first one's"
    assert train(40) == 2 + 3, "after 6, 12 and 24 steps"


def test_instructions_of_a_step_within_a_step_are_not_its_own(notes: Notes, steps: Steps) -> None:
    def instruction(microbatch: int) -> None:
        steps.run_instruction(lambda: ("F", 0, microbatch), lambda: None)

    def step() -> None:
        instruction(0)
        steps.run(lambda: None, lambda: instruction(9))
        instruction(1)

    steps.run(lambda: work(4), step)
    assert notes.told == [("step", 4), "F0", "F1", "whole"]


def test_a_step_that_raises_or_is_spoiled_leaves_no_record_and_the_next_one_does(notes: Notes, steps: Steps) -> None:
    def spoiled() -> None:
        steps.spoil()
        steps.run_instruction(lambda: ("F", 0, 0), lambda: None)

    with pytest.raises(ZeroDivisionError):
        steps.run(lambda: work(4), lambda: 1 // 0)
    steps.run(lambda: work(4), spoiled)
    steps.run(lambda: work(4), lambda: None)
    assert notes.told == [("step", 4), "not whole", ("step", 4), "untold", ("step", 4), "whole"]


def test_what_cannot_be_told_is_no_error_of_the_training(notes: Notes, steps: Steps) -> None:
    assert steps.run(lambda: work(4), lambda: steps.run_instruction(lambda: ("F", 0, 1 // 0), lambda: 7)) == 7
    assert steps.run(lambda: 1 // 0, lambda: 8) == 8  # type: ignore[arg-type,return-value]
    assert sum("ZeroDivisionError" in str(one) for one in notes.told) == 2


def test_a_stage_that_cannot_tell_whether_its_end_is_open_is_no_error_of_the_training(
    notes: Notes, steps: Steps
) -> None:
    def ask() -> bool:
        raise AttributeError

    def step() -> int:
        return steps.run_instruction(lambda: ("F", 0, 0), lambda: 7, open_ended=ask)

    assert steps.run(lambda: work(4), step) == 7
    assert "AttributeError()" in notes.told


def test_an_evaluation_is_told_of_a_pipeline_that_trains_between_two_steps_alone(notes: Notes, steps: Steps) -> None:
    steps.run(lambda: None, lambda: None)
    steps.run(lambda: work(4), lambda: steps.run(lambda: None, lambda: None))
    assert notes.told == [("step", 4), "whole"]
    steps.run(lambda: None, lambda: None)
    assert notes.told[2:] == ["evaluates"]


def test_an_open_end_is_that_of_the_next_instruction_at_the_latest_or_of_the_step(notes: Notes, steps: Steps) -> None:
    ended = []

    def step() -> None:
        for number in range(3):
            steps.run_instruction(partial(lambda n: ("F", 0, n), number), lambda: None, open_ended=lambda: True)
            ended.append(notes.ended)
        steps.end_open()
        ended.append(notes.ended)
        steps.end_open()
        steps.run_instruction(lambda: ("F", 0, 3), lambda: None, open_ended=lambda: True)

    steps.run(lambda: work(4), step)
    assert ended == [0, 1, 2, 3]
    assert notes.ended == 4
    assert notes.told[-1] == "whole"


def test_an_instruction_with_an_open_end_that_fails_ends_at_once(notes: Notes, steps: Steps) -> None:
    def fail() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        steps.run(lambda: work(4), lambda: steps.run_instruction(lambda: ("F", 0, 0), fail, open_ended=lambda: True))
    assert notes.ended == 1
    assert notes.told[-1] == "not whole"
