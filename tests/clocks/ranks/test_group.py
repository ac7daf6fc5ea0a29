"""Tensor-parallel peers: the first raises, the last lowers, and nobody holds the others for long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from joulepath_clocks.gpus.wish import DEFAULT, Wish, height
from joulepath_clocks.ranks.group import PATIENCE_S, Group, Member, joint

clocks = st.sampled_from((DEFAULT, 1200, 900, 600))
plain = st.builds(Wish, clocks)
raising = st.builds(Wish, clocks, clocks, st.floats(0.0, 10.0))
wishes = plain | raising


class Gpu:
    """A member's GPU: what it was ordered last."""

    def __init__(self) -> None:
        self.wish, self.orders = Wish(DEFAULT), 0
        self.takes = True
        self.member = Member(self.order)

    def order(self, wish: Wish) -> bool:
        """Takes an order, if it does."""
        if self.takes:
            self.wish, self.orders = wish, self.orders + 1
        return self.takes


def at(wish: Wish, now_s: float) -> float:
    """How high a wish is at a time."""
    late = wish.later_mhz is not None and wish.later_at_s <= now_s
    return height(wish.later_mhz if late and wish.later_mhz is not None else wish.now_mhz)


@given(st.lists(wishes, min_size=1, max_size=5), st.floats(0.0, 10.0), st.floats(0.0, 10.0))
def test_together_they_are_never_below_any_of_them_and_now_as_high_as_the_highest(
    wanted: list[Wish], now_s: float, later_s: float
) -> None:
    rising = [one for one in wanted if one.later_mhz is None or height(one.later_mhz) >= height(one.now_mhz)]
    if not rising:
        return
    made = joint(rising, now_s)
    assert at(made, now_s) == max(at(one, now_s) for one in rising)
    assert at(made, now_s + later_s) >= max(at(one, now_s + later_s) for one in rising)


@given(wishes, st.floats(0.0, 10.0))
def test_a_rank_by_itself_is_ordered_what_it_wants(wish: Wish, now_s: float) -> None:
    gpu, group = Gpu(), Group()
    group.wish(gpu.member, wish, (1, 0), now_s)
    assert at(gpu.wish, now_s) == at(wish, now_s)
    group.wish(gpu.member, Wish(900), (1, 1), now_s)
    assert gpu.wish == Wish(900)


moves = st.lists(st.tuples(st.integers(0, 2), clocks, st.floats(0.0, 0.2)), min_size=1, max_size=40)


def play(group: Group, gpus: Sequence[Gpu], moved: list[Any]) -> tuple[list[int], float]:
    """Members that go on one marker at a time, each with a clock that it wants; where they are, and when."""
    at_marker, now_s = [0] * len(gpus), 100.0
    for who, clock_mhz, after_s in moved:
        now_s += after_s
        if group.due_s <= now_s:
            group.look(now_s)
        at_marker[who] += 1
        group.wish(gpus[who].member, Wish(clock_mhz), (1, at_marker[who]), now_s)
        wanted = [gpu.member.wish for gpu in gpus]
        for gpu, own in zip(gpus, wanted, strict=True):
            if own is not None:
                assert height(gpu.wish.now_mhz) >= height(own.now_mhz)
        lead = max(at_marker)
        leaders = [gpu for gpu, marker in zip(gpus, at_marker, strict=True) if marker == lead]
        highest = max(height(gpu.member.wish.now_mhz) for gpu in leaders if gpu.member.wish is not None)
        assert all(height(gpu.wish.now_mhz) >= highest for gpu in gpus if gpu.member.wish is not None)
    return at_marker, now_s


@given(moves)
def test_nobody_is_below_what_it_wants_or_what_the_foremost_want(moved: list[Any]) -> None:
    play(Group(), [Gpu(), Gpu(), Gpu()], moved)


@given(moves, clocks)
def test_a_peer_that_is_silent_holds_nobody_after_a_while(moved: list[Any], clock_mhz: int) -> None:
    group, gpus = Group(), [Gpu(), Gpu(), Gpu()]
    at_marker, now_s = play(group, gpus, moved)
    ahead = (1, max(at_marker) + 1)
    for gpu in gpus[:2]:
        group.wish(gpu.member, Wish(clock_mhz), ahead, now_s)
    group.look(now_s + PATIENCE_S)
    assert [gpu.wish.now_mhz for gpu in gpus[:2]] == [clock_mhz] * 2


@given(moves)
def test_one_that_leaves_holds_nobody_from_then_on(moved: list[Any]) -> None:
    group, gpus = Group(), [Gpu(), Gpu(), Gpu()]
    at_marker, now_s = play(group, gpus, moved)
    for gpu, marker in zip(gpus[:2], at_marker, strict=False):
        group.wish(gpu.member, Wish(600), (1, marker), now_s)
    group.leave(gpus[2].member, now_s)
    group.leave(gpus[2].member, now_s)
    assert [gpu.wish.now_mhz for gpu in gpus[:2]] == [600] * 2


def test_the_first_raises_and_the_last_lowers() -> None:
    group, first, last = Group(), Gpu(), Gpu()
    for gpu in (first, last):
        group.wish(gpu.member, Wish(900), (1, 0), 0.0)
    group.wish(last.member, Wish(900, DEFAULT, 0.5), (1, 1), 0.1)
    assert (first.wish, last.wish) == (Wish(900, DEFAULT, 0.5),) * 2
    group.wish(first.member, Wish(900, DEFAULT, 0.4), (1, 1), 0.11)
    assert (first.wish, last.wish) == (Wish(900, DEFAULT, 0.4),) * 2
    group.wish(first.member, Wish(DEFAULT), (1, 2), 0.42)
    group.wish(last.member, Wish(DEFAULT), (1, 2), 0.43)
    group.wish(first.member, Wish(600), (1, 4), 0.9)
    assert (first.wish, last.wish) == (Wish(DEFAULT),) * 2, "the other one still runs at default clocks"
    group.wish(last.member, Wish(600), (1, 4), 0.93)
    assert (first.wish, last.wish) == (Wish(600),) * 2


def test_what_a_rank_by_itself_wants_already_is_not_ordered_again_but_after_it_has_left() -> None:
    gpu, group = Gpu(), Group()
    for position in range(3):
        group.wish(gpu.member, Wish(900), (1, position), 0.0)
    assert gpu.orders == 1
    group.leave(gpu.member, 0.0)
    group.wish(gpu.member, Wish(900), (1, 3), 0.0)
    assert gpu.orders == 2


@given(st.integers(1, 3))
def test_what_was_not_taken_is_ordered_again(peers: int) -> None:
    gpus, group = [Gpu() for _ in range(peers)], Group()
    gpus[0].takes = False
    for position in range(3):
        for gpu in gpus:
            group.wish(gpu.member, Wish(900), (1, position), 0.0)
        gpus[0].takes = position > 0
    assert [gpu.wish for gpu in gpus] == [Wish(900)] * peers
