"""Savings against numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from joulepath_crds import Arm, BlockReport, Coordinates, Estimate, MeasuredSavings, RankReport, Sort
from joulepath_operator.figures.joining import complete_blocks
from joulepath_operator.figures.savings import (
    estimate,
    in_words,
    is_enough,
    measured_savings,
    outlives,
    t_quantile,
)


def block(index: int, arm: Arm, energy_j: float, time_s: float = 2.0, **changes: Any) -> BlockReport:
    fields: dict[str, Any] = {"hash": "h", "iterations": 4, "iteration_time_s": time_s}
    return BlockReport(**{**fields, "block": index, "arm": arm, "energy_per_iteration_j": energy_j, **changes})


def rank(number: int, *blocks: BlockReport) -> RankReport:
    return RankReport(
        rank=number,
        pod="p",
        pod_uid="u",
        gpu_uuid=f"g{number}",
        coordinates=Coordinates(pipeline=number),
        stages=(number,),
        stage_count=2,
        schedule="1F1B",
        microbatches=4,
        blocks=blocks,
    )


def pairs(savings: list[float], control_j: float = 100.0, plan_s: float = 2.0) -> list[BlockReport]:
    """Blocks of one rank, the control block first in every second pair."""
    blocks = []
    for pair, saved in enumerate(savings):
        arms = [(Arm.PLAN, control_j * (1 - saved), plan_s), (Arm.CONTROL, control_j, 2.0)]
        for place, (arm, energy_j, time_s) in enumerate(arms if pair % 2 else arms[::-1]):
            blocks.append(block(2 * pair + place, arm, energy_j, time_s))
    return blocks


def test_four_pairs_of_two_ranks_by_hand() -> None:
    """Savings 10%, 12%, 14%, 16%: mean 13%, deviation 2.582%, t(3) 3.182, half width 4.108 points."""
    blocks = pairs([0.10, 0.12, 0.14, 0.16], plan_s=2.02)
    measured = measured_savings("h", [rank(0, *blocks), rank(1, *blocks)])
    assert measured is not None
    assert measured.pairs == 4
    assert measured.savings.mean == pytest.approx(0.13)
    assert measured.savings.ci95_high - measured.savings.mean == pytest.approx(1.1 * 0.04108, rel=2e-3)
    assert measured.slowdown.mean == pytest.approx(0.01)
    assert measured.slowdown.ci95_low == pytest.approx(0.01)
    assert measured.control.energy_per_iteration_j.mean == pytest.approx(200)
    assert measured.plan.energy_per_iteration_j.mean == pytest.approx(174)
    assert measured.plan.iteration_time_s.mean == pytest.approx(2.02)
    assert measured.control.iterations == measured.plan.iterations == 16


def test_blocks_of_different_sorts_of_iterations_are_no_pair_and_ranks_may_differ() -> None:
    """After an evaluation an iteration takes longer: to compare one with another that isn't disturbed shows nothing."""
    blocks = pairs([0.10, 0.12, 0.14, 0.16, 0.5])
    blocks[-1] = blocks[-1].model_copy(update={"sort": Sort.DISTURBED})
    evaluating = [one.model_copy(update={"sort": Sort.OWN}) for one in blocks[:-1]]
    for own in ([rank(0, *blocks)], [rank(0, *blocks), rank(1, *evaluating, blocks[-1])]):
        measured = measured_savings("h", own)
        assert measured is not None
        assert measured.pairs == 4
        assert measured.savings.mean == pytest.approx(0.13)


def test_three_pairs_are_not_enough() -> None:
    assert measured_savings("h", [rank(0, *pairs([0.1, 0.1, 0.1]))]) is None
    assert measured_savings("h", []) is None


def test_a_block_counts_only_when_every_rank_has_it_in_the_same_arm() -> None:
    blocks = pairs([0.1] * 5)
    other = [one.model_copy(update={"arm": Arm.CONTROL}) if one.block == 2 else one for one in blocks if one.block != 0]
    assert sorted(complete_blocks("h", [rank(0, *blocks), rank(1, *other)])) == [1, 3, 4, 5, 6, 7, 8, 9]
    assert measured_savings("h", [rank(0, *blocks), rank(1, *other)]) is None


def test_blocks_of_another_plan_and_empty_ones_do_not_count() -> None:
    blocks = [block(0, Arm.PLAN, 90, hash="old"), block(1, Arm.PLAN, 90, iterations=0), block(2, Arm.CONTROL, 100)]
    assert sorted(complete_blocks("h", [rank(0, *blocks)])) == [2]


def test_a_pair_of_equal_arms_is_no_pair() -> None:
    blocks = [one.model_copy(update={"arm": Arm.PLAN}) for one in pairs([0.1] * 4)]
    assert measured_savings("h", [rank(0, *blocks)]) is None


def test_a_job_that_becomes_slower_by_itself_keeps_its_pairs() -> None:
    """By 12% over the run: no pair is unlike those beside it."""
    blocks = [
        one.model_copy(update={"iteration_time_s": one.iteration_time_s * (1 + 0.12 * one.block / 128)})
        for one in pairs([0.15] * 64)
    ]
    measured = measured_savings("h", [rank(0, *blocks)])
    assert measured is not None
    assert measured.pairs == 64


def test_a_pair_in_a_slow_spell_of_the_job_does_not_count() -> None:
    blocks = pairs([0.15] * 16)
    spell = [one.model_copy(update={"iteration_time_s": 2.4}) if one.block in (8, 9, 20) else one for one in blocks]
    measured = measured_savings("h", [rank(0, *spell)])
    assert measured is not None
    assert measured.pairs == 14


def test_only_the_newest_pairs_count_where_that_is_asked() -> None:
    measured = measured_savings("h", [rank(0, *pairs([0.1] * 20 + [0.2] * 8))], newest=8)
    assert measured is not None
    assert measured.pairs == 8
    assert measured.savings.mean == pytest.approx(0.2)


def test_enough_is_known_of_eight_pairs_that_agree() -> None:
    def known(savings: list[float]) -> bool:
        measured = measured_savings("h", [rank(0, *pairs(savings))])
        assert measured is not None
        return is_enough(measured)

    assert known([0.15, 0.151] * 4)
    assert not known([0.15, 0.151] * 3 + [0.15])
    assert not known([0.1, 0.2] * 4)


def test_a_figure_outlives_the_blocks_that_an_agent_lost_until_there_are_eight_pairs_again() -> None:
    old, few, new = (measured_savings("h", [rank(0, *pairs([0.15] * count))]) for count in (20, 5, 8))
    assert old is not None
    assert outlives(old, None)
    assert outlives(old, few)
    assert not outlives(old, new)


@pytest.mark.parametrize(("degrees", "quantile"), [(3, 3.1824), (4, 2.7764), (7, 2.3646), (15, 2.1314), (60, 2.0003)])
def test_students_t_as_in_the_tables(degrees: int, quantile: float) -> None:
    assert t_quantile(degrees) == pytest.approx(quantile, rel=2e-3)


def test_equal_values_have_no_width() -> None:
    assert estimate([0.2, 0.2, 0.2, 0.2]) == Estimate(mean=0.2, ci95_low=0.2, ci95_high=0.2)


def test_savings_in_words() -> None:
    measured = measured_savings("h", [rank(0, *pairs([0.150, 0.152, 0.154, 0.152]))])
    assert in_words(measured) == "15.2% ± 0.3"
    assert in_words(None) == "not yet known"
    assert isinstance(measured, MeasuredSavings)
