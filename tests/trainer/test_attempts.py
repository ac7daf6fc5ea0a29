"""The number of an attempt, over the ranks' own store."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from joulepath_trainer import attempts
from joulepath_trainer.attempts import Attempt

if TYPE_CHECKING:
    from tests.trainer.conftest import Nursery


def test_all_ranks_of_a_gang_have_rank_0s_number_and_not_that_of_the_gang_before(nursery: Nursery) -> None:
    first, *others = nursery.run("number_attempts", 3)
    assert first == [[10, 10, 10], [20, 20, 20], [21, 21, 21]], "growing, though the last clock is behind"
    assert others == [[[None, 10, 10], [None, 20, 20], [None, 21, 21]]] * 2


def test_where_rank_0_says_no_number_the_others_go_by_their_restarts_after_some_steps(nursery: Nursery) -> None:
    _, found = nursery.run("number_attempts_alone", 2, steps=9)
    assert found == [None] * 8 + [3], "eight steps, and five seconds, too"


def test_who_waits_for_something_else_at_the_store_keeps_no_training_step_waiting(nursery: Nursery) -> None:
    assert nursery.run("number_attempts_beside_a_waiter", 2) == [[7, True]] * 2


class TroubledStore:
    """A store of which the first requests fail, and the first write is lost."""

    def __init__(self, failing: int) -> None:
        self.held: dict[str, bytes] = {}
        self.failing, self.writes = failing, 0

    def clone(self) -> TroubledStore:
        """See torch's Store."""
        self.failing -= 1
        if self.failing >= 0:
            raise ConnectionError("the store is away")
        return self

    def set(self, key: str, value: str) -> None:
        """See torch's Store."""
        self.writes += 1
        if self.writes > 1:
            self.held[key] = value.encode()

    def check(self, keys: list[str]) -> bool:
        """See torch's Store."""
        return all(key in self.held for key in keys)

    def get(self, key: str) -> bytes:
        """See torch's Store."""
        return self.held[key]


def test_trouble_that_passes_leaves_all_ranks_with_rank_0s_number(monkeypatch: pytest.MonkeyPatch) -> None:
    store = TroubledStore(failing=2)
    monkeypatch.setattr(attempts, "default_store", lambda: store)
    for rank in (0, 1):
        monkeypatch.setattr(attempts, "rank_and_world", partial(tuple, (rank, 2)))
        store.failing = 2
        attempt = Attempt(partial(float, 1_577_836_809 + rank))
        while (number := attempt.ask()) is None:
            pass
        assert number == 9


@pytest.mark.parametrize(("environment", "number"), [({}, 5), ({"WORLD_SIZE": "2", "RANK": "1"}, 0)])
def test_without_a_process_group_nothing_is_waited_for(
    environment: dict[str, str], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Attempt(lambda: 1_577_836_805.9).ask() == number
