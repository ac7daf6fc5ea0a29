"""The kernels' tables: the published ones as published, the computed ones physical."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_gpus import model

# Stages 0 and 7 at the eight top clocks of the published GPT-3 175B profile on A100 (data of the artifact of
# "Reducing Energy Bloat in Large Model Training", SOSP'24, ml-energy/zeus, Apache-2.0).
EXCERPT = Path(__file__).with_name("replay_excerpt.csv")
CLOCKS = model.A100_CLOCKS.all_mhz


def test_the_a100_has_81_clocks_from_210_to_1410() -> None:
    assert (CLOCKS[0], CLOCKS[-1], len(CLOCKS)) == (210, 1410, 81)


def test_replay_is_the_published_profile_point_by_point() -> None:
    replayed = model.replay(EXCERPT)
    with EXCERPT.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 32
    for row in rows:
        kernel = replayed.kernel(int(row["stage"]), row["instruction"][0].upper())
        at = CLOCKS.index(int(row["frequency"]))
        assert kernel.time_s[at] == float(row["time"])
        assert kernel.power_w[at] * kernel.time_s[at] == pytest.approx(float(row["energy"]), rel=1e-12)


def test_replay_keeps_points_over_the_power_limit_and_caps_nothing() -> None:
    replayed = model.replay(EXCERPT)
    assert replayed.kernel(0, "B").power_w[-1] > replayed.power_limit_w
    assert not replayed.enforce_cap


def test_replay_waits_at_the_published_blocking_power_at_top_clock() -> None:
    assert model.replay(EXCERPT).blocking_w[-1] == pytest.approx(83.64)


def test_replay_goes_on_below_the_measured_clocks_slower_and_at_less_power() -> None:
    kernel = model.replay(EXCERPT).kernel(7, "F")
    measured_from = CLOCKS.index(1305)
    slower = kernel.time_s[: measured_from + 1]
    cheaper = kernel.power_w[: measured_from + 1]
    assert list(slower) == sorted(slower, reverse=True)
    assert list(cheaper) == sorted(cheaper)


def test_replay_splits_a_backward_into_two_halves() -> None:
    replayed = model.replay(EXCERPT)
    halves = [replayed.kernel(7, kind).time_s[-1] for kind in "IW"]
    assert sum(halves) == pytest.approx(replayed.kernel(7, "B").time_s[-1])


def test_replay_refuses_a_profile_with_a_hole(tmp_path: Path) -> None:
    lines = EXCERPT.read_text().splitlines(keepends=True)
    (tmp_path / "holed.csv").write_text("".join(line for line in lines if ",1350," not in line))
    with pytest.raises(ValueError, match="no point at 1350 MHz"):
        model.replay(tmp_path / "holed.csv")


def test_parametric_refuses_a_name_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="knows no 'colour'"):
        model.parametric({"colour": 1})


@given(share=st.floats(0, 1), scale=st.lists(st.floats(0.1, 10), min_size=1, max_size=4))
def test_parametric_kernels_are_never_faster_nor_cheaper_at_a_lower_clock(share: float, scale: list[float]) -> None:
    made = model.parametric({"compute_share": share, "stage_scale": scale})
    for kernel in made.kernels:
        assert list(kernel.time_s) == sorted(kernel.time_s, reverse=True)
        assert list(kernel.power_w) == sorted(kernel.power_w)
    for stage, factor in enumerate(scale):
        assert made.kernel(stage, "F").time_s[-1] == pytest.approx(0.05 * factor)
