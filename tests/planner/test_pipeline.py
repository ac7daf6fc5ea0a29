from __future__ import annotations

from collections.abc import Mapping

import pytest

from joulepath_planner import Pipeline, recorded
from planner.pipelines import scaled

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
