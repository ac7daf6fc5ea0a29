"""The number of an attempt, over the ranks' own store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from joulepath_trainer.attempts import Attempt

if TYPE_CHECKING:
    from trainer.conftest import Nursery


def test_all_ranks_of_a_gang_have_rank_0s_number_and_not_that_of_the_gang_before(nursery: Nursery) -> None:
    first, *others = nursery.run("number_attempts", 3)
    assert first == [[10, 10, 10], [20, 20, 20]]
    assert others == [[[None, 10, 10], [None, 20, 20]]] * 2


def test_where_rank_0_says_no_number_the_others_go_by_their_restarts_after_some_steps(nursery: Nursery) -> None:
    _, found = nursery.run("number_attempts_alone", 2, steps=9)
    assert found == [None] * 7 + [3, 3]


@pytest.mark.parametrize(("environment", "number"), [({}, 5), ({"WORLD_SIZE": "2", "RANK": "1"}, 0)])
def test_without_a_process_group_nothing_is_waited_for(
    environment: dict[str, str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Attempt(lambda: 1_577_836_805.9).ask() == number
