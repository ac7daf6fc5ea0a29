"""How many rounds of a schedule make an iteration."""

from __future__ import annotations

from joulepath_trainer.frameworks.rounds import Rounds


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


def test_a_step_that_was_skipped_is_known_once_the_next_round_begins() -> None:
    rounds = Rounds()
    rounds.begin()
    assert not rounds.made_no_step, "there may be no optimizer"
    rounds.end()
    iteration(rounds, 2)
    known = []
    for _ in range(6):
        known.append(rounds.made_no_step)
        rounds.begin()
    assert known == [False, False, True, False, False, False], "said once: perhaps none is seen to step any more"
    rounds.end()
    assert not rounds.made_no_step


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
