"""How many rounds of a schedule make an iteration, and which make no step of the optimizer."""

from __future__ import annotations

from joulepath_trainer.frameworks.rounds import Rounds, Skips


def iteration(rounds: Rounds, count: int) -> list[tuple[int, bool]]:
    """The rounds until the optimizer steps."""
    found = [rounds.begin() for _ in range(count)]
    rounds.end()
    return found


def test_rounds_are_numbered_as_in_the_iteration_before() -> None:
    rounds = Rounds()
    assert iteration(rounds, 3) == [(0, True), (0, True), (0, True)], "nothing is known yet"
    assert iteration(rounds, 3) == [(0, False), (1, False), (2, True)]
    assert iteration(rounds, 1) == [(0, False)]
    assert iteration(rounds, 2) == [(0, True), (0, True)]
    assert rounds.count == 2


def test_without_an_optimizer_each_round_is_an_iteration() -> None:
    rounds = Rounds()
    assert [rounds.begin() for _ in range(5)] == [(0, True)] * 5


def test_further_optimizers_of_a_step_and_rounds_that_failed_do_not_count() -> None:
    rounds = Rounds()
    iteration(rounds, 2)
    rounds.end()
    rounds.end()
    assert rounds.count == 2
    rounds.begin()
    rounds.fail()
    assert iteration(rounds, 2) == [(0, False), (1, True)]
    assert rounds.count == 2


def skipped(*stepped: bool) -> list[int]:
    """The iterations that are told to have made no step."""
    skips, found = Skips(), []
    for number, step in enumerate(stepped):
        if step:
            skips.step()
        if skips.turn():
            found.append(number)
    return found


def test_a_step_that_is_skipped_is_told_but_for_those_before_the_first_one() -> None:
    assert skipped(*[False] * 4, True, True, False, *[True] * 8, False, False, True) == [6, 15, 16]


def test_nothing_is_told_of_a_training_that_often_makes_none_or_none_any_more() -> None:
    assert skipped(*[True, False, False] * 20) == [1, 2]
    assert skipped(*[True] * 20, *[False] * 50) == [20, 21]
