from __future__ import annotations

from collections.abc import Mapping

import pytest

from joulepath_planner import Pipeline, ProfileError, recorded, simulate, zbv
from tests.planner.pipelines import profiled, scaled

LOOPED = recorded(["0:F0 2:F0 2:B0 0:B0", "1:F0 3:F0 3:B0 1:B0"])


def test_a_rank_stands_for_the_gpus_of_its_stages() -> None:
    pipeline = Pipeline(LOOPED, scaled([1] * 4, 1).profile, gpus={1: 8, 3: 8})
    assert [pipeline.rank_gpus(rank) for rank in range(2)] == [1, 8]


@pytest.mark.parametrize(
    ("gpus", "sentence"),
    [
        ({4: 2}, r"gpus\[4\]: the schedule has no stage 4"),
        ({0: 0}, r"gpus\[0\] is 0"),
        ({0: 2}, r"the stages of rank 0 run on different numbers of GPUs \(stage 0 2, stage 2 1\)"),
    ],
)
def test_numbers_of_gpus_that_cannot_be_are_refused(gpus: Mapping[int, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Pipeline(LOOPED, scaled([1] * 4, 1).profile, gpus=gpus)


def test_nothing_travels_between_two_stages_of_one_rank() -> None:
    schedule = zbv(4, 6)
    bare, delays = Pipeline(schedule, profiled(schedule)), {(1, 2, "F"): 0.5, (2, 1, "I"): 0.5, (0, 1, "F"): 0.01}
    pipeline = Pipeline(schedule, bare.profile, transfer_s=delays)
    assert pipeline.transfer_s == {(0, 1, "F"): 0.01}
    assert simulate(pipeline).iteration_time_s <= simulate(bare).iteration_time_s + 6 * 0.01


@pytest.mark.parametrize("edge", [(0, 2, "F"), (0, 1, "B"), (1, 0, "F"), (3, 4, "F"), (-1, 0, "F"), (1, 0, "W")])
def test_what_is_no_edge_is_refused(edge: tuple[int, int, str]) -> None:
    with pytest.raises(ValueError, match="is no edge; activations go from a stage to the next as F"):
        Pipeline(LOOPED, scaled([1] * 4, 1).profile, transfer_s={edge: 0.1})


def test_a_split_backward_needs_its_parts_in_the_profile() -> None:
    with pytest.raises(ProfileError, match=r"no I \(input\) of that stage; measure it \(I and W are the parts of B\)"):
        Pipeline(zbv(4, 4), scaled([1] * 4, 1).profile)
