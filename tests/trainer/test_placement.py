"""Coordinates, against a mesh written out in full."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from joulepath_trainer.placement import Placement, place

sizes = st.integers(1, 4)


@given(st.permutations(["data", "pipeline", "tensor"]), st.tuples(sizes, sizes, sizes))
def test_every_rank_of_a_regular_mesh_finds_its_coordinates(names: list[str], counts: tuple[int, ...]) -> None:
    size = dict(zip(names, counts, strict=True))
    ranks = [dict(zip(names, where, strict=True)) for where in product(*(range(size[name]) for name in names))]
    for rank, where in enumerate(ranks):

        def along(name: str, where: dict[str, int] = where) -> list[int]:
            return [r for r, other in enumerate(ranks) if {**other, name: 0} == {**where, name: 0}]

        placement = place(rank, len(ranks), along("pipeline"), along("tensor"))
        assert placement == Placement(where["data"], where["tensor"], size["data"], size["tensor"])


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True), st.integers(1, 64))
def test_ranks_in_any_order_give_an_index_and_counts_of_at_least_one(pipeline: list[int], world: int) -> None:
    placement = place(pipeline[0], world, pipeline)
    assert placement.data >= 0
    assert placement.data_parallel >= 1


def test_a_tensor_group_of_others_is_not_this_ranks() -> None:
    assert place(0, 4, [0, 1], [2, 3]) == Placement(0, 0, 2, 1)
