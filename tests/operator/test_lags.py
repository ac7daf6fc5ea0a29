"""Lags of several GPUs as one."""

from __future__ import annotations

from typing import Literal

from joulepath_crds import MOST_TARGETS, SwitchingLag, TargetLag
from joulepath_operator.facts.lags import joined, pooled


def row(clock_mhz: int, direction: Literal["up", "down"], median_s: float, p95_s: float, samples: int = 4) -> TargetLag:
    return TargetLag(clock_mhz=clock_mhz, direction=direction, median_s=median_s, p95_s=p95_s, samples=samples)


def lag(up_s: float, *targets: TargetLag) -> SwitchingLag:
    """A GPU's, with tails twice as long as medians."""
    return SwitchingLag(
        up_median_s=up_s, up_p95_s=2 * up_s, down_median_s=0.01, down_p95_s=0.02, samples=9, targets=targets or None
    )


def test_a_slow_gpu_counts_by_its_median_and_a_long_tail_of_one_does_not() -> None:
    gpus = [lag(0.01, row(900, "up", 0.03, 0.04)) for _ in range(3)] + [lag(0.05, row(900, "up", 0.06, 0.90))]
    found = pooled(gpus)
    assert (found.up_median_s, found.up_p95_s) == (0.05, 0.05)
    assert found.targets == (row(900, "up", 0.06, 0.06, 16),)


def test_a_gpu_that_does_not_know_a_target_raises_to_it_by_what_it_knows_of_all() -> None:
    knows, knows_not = lag(0.04, row(900, "up", 0.01, 0.012)), lag(0.04)
    assert pooled([knows, knows, knows_not]).targets == (row(900, "up", 0.01, 0.012, 8),)
    assert pooled([knows, knows_not, knows_not]).targets == (row(900, "up", 0.01, 0.08, 4),)


def test_single_switches_of_many_gpus_are_counted_together() -> None:
    seen = [lag(0.01, row(900, "down", 0.001 * gpu, 0.001 * gpu, samples=1)) for gpu in range(1, 6)]
    assert pooled(seen).targets == (row(900, "down", 0.005, 0.005, 5),)


def test_of_more_targets_than_are_told_those_measured_most_often_stay() -> None:
    gpus = [lag(0.01, *(row(300 + 100 * gpu + at, "down", 0.01, 0.01, 1 + at) for at in range(32))) for gpu in range(8)]
    targets = pooled(gpus).targets
    assert targets is not None
    assert len(targets) == MOST_TARGETS
    assert min(row.samples for row in targets) > 20


def test_of_older_agents_that_know_no_targets_two_numbers_are_known() -> None:
    old = SwitchingLag.from_api(
        {"upMedianSeconds": 0.01, "upP95Seconds": 0.02, "downMedianSeconds": 0.01, "downP95Seconds": 0.02, "samples": 9}
    )
    assert pooled([old, old]) == old.model_copy(update={"samples": 18})


def test_what_was_seen_more_often_stays_clock_by_clock_and_of_all() -> None:
    then = lag(0.3, row(1050, "up", 0.2, 0.3, 20), row(1200, "up", 0.2, 0.25, 4), row(900, "down", 0.01, 0.02, 9))
    now = lag(0.02, row(1200, "up", 0.02, 0.03, 4), row(900, "down", 0.5, 0.6, 2), row(1050, "down", 0.01, 0.02, 1))
    few = now.model_copy(update={"samples": 3})
    rows = {*(then.targets or ())[::2], *(now.targets or ())[::2]}
    for found, of_all in ((joined(few, then), then), (joined(now, then), now)):
        assert found is not None
        assert set(found.targets or ()) == rows
        assert found.model_copy(update={"targets": None}) == of_all.model_copy(update={"targets": None})
    assert (joined(None, then), joined(few, None), joined(None, None)) == (then, few, None)
