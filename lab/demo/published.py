"""What was published about this experiment, scaled in time as the virtual GPUs are.

A virtual second at scale 0.5 lasts half a real one at the same watts: seconds and joules both shrink with the scale,
ratios don't.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["PERSEUS_SAVINGS", "RATED_POWER_W", "Published", "beside_straggler", "load", "points_over_rated_power"]

PERSEUS_SAVINGS: Final = 0.153
"""Saved by Perseus at the shortest iteration time of this job (8 stages, 12 microbatches, A100), as a fraction."""

RATED_POWER_W: Final = 400.0
"""Board power of an A100 SXM, watts."""

_WAITING_W: Final = 8 * 83.64
"""What the GPUs of a pipeline that waits draw in these data."""

_DATA: Final = Path(__file__).resolve().parents[2] / "examples/data"
_FRONTIER: Final = "gpt3-175b_a100-sxm_frontier_mb12.csv"
_PROFILE: Final = "gpt3-175b_a100-sxm_stage-profile.csv"


@dataclass(frozen=True, slots=True)
class Published:
    """The published frontier: (seconds, joules) of an iteration, by time."""

    frontier: tuple[tuple[float, float], ...]


def load(time_scale: float, data: Path = _DATA) -> Published:
    """The published frontier at this time scale."""
    with (data / _FRONTIER).open() as file:
        rows = [(float(row["time"]) * time_scale, float(row["energy"]) * time_scale) for row in csv.DictReader(file)]
    return Published(tuple(sorted(rows)))


def beside_straggler(slowdown: float) -> tuple[float, float]:
    """What follows of the published frontier for two such pipelines, one of which takes so many times as long.

    As fractions that are saved of the energy of both: with the other one stretched to it, and without.
    """
    frontier = load(1).frontier
    t_min_s, least_j = frontier[0]
    default_j = least_j / (1 - PERSEUS_SAVINGS)

    def waited_j(seconds: float) -> float:
        return (slowdown * t_min_s - seconds) * _WAITING_W

    stretched_j = min(joules + waited_j(seconds) for seconds, joules in frontier if seconds <= slowdown * t_min_s)
    baseline_j = (slowdown + 1) * default_j + waited_j(t_min_s)
    stretched, unstretched = (
        1 - (slowdown * least_j + other_j) / baseline_j for other_j in (stretched_j, least_j + waited_j(t_min_s))
    )
    return stretched, unstretched


def points_over_rated_power(data: Path = _DATA) -> tuple[int, int]:
    """How many points of the published stage profile draw more than the board's rated power, and of how many."""
    with (data / _PROFILE).open() as file:
        watts = [float(row["energy"]) / float(row["time"]) for row in csv.DictReader(file)]
    return sum(power > RATED_POWER_W for power in watts), len(watts)
