"""`joulepath plan`: what it prints is what the planner made, whichever way it was asked."""

from __future__ import annotations

import json
import math
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from joulepath_planner import Pipeline, frontier, one_f_one_b, simulate
from tests.cli.command import PROFILE, Run

SHAPE = ("--schedule", "1f1b", "--stages", 4, "--microbatches", 6, "--blocking-power", 80)
PIPELINE = Pipeline(one_f_one_b(4, 6), PROFILE)
KNOWN = frontier(PIPELINE)


def _planned(run: Run, csv: Path, *options: object) -> dict[str, Any]:
    ran = run("plan", csv, *SHAPE, "--json", *options)
    assert (ran.status, ran.err) == (0, "")
    found: dict[str, Any] = json.loads(ran.out)
    return found


def test_the_json_is_a_plan_whose_parts_add_up(run: Run, csv: Path) -> None:
    found = _planned(run, csv)
    rows = [[one["clock_mhz"] for one in rank["instructions"]] for rank in found["ranks"]]
    seen = simulate(PIPELINE, rows)
    assert found["iteration_time_s"] == pytest.approx(seen.iteration_time_s)
    assert found["energy_j"] == pytest.approx(seen.energy_j)
    busy_s = sum(one["duration_s"] for rank in found["ranks"] for one in rank["instructions"])
    own_j = sum(one["energy_j"] for rank in found["ranks"] for one in rank["instructions"])
    assert found["energy_j"] == pytest.approx(own_j + 80 * (4 * found["iteration_time_s"] - busy_s))
    assert found["optimality_gap"] == pytest.approx(found["energy_j"] / found["lower_bound_j"] - 1)
    assert found["t_min_s"] == pytest.approx(KNOWN.t_min_s)
    assert [rank["stage"] for rank in found["ranks"]] == [0, 1, 2, 3]
    for rank in found["ranks"]:
        for one, after in zip(rank["instructions"], rank["instructions"][1:], strict=False):
            assert after["start_s"] >= one["start_s"] + one["duration_s"] - 1e-9
        assert {one["kind"] for one in rank["instructions"]} == {"F", "B"}
        assert {one["microbatch"] for one in rank["instructions"]} == set(range(6))


def test_each_objective_is_kept(run: Run, csv: Path) -> None:
    by_slowdown = _planned(run, csv, "--slowdown", "5%")
    assert by_slowdown["iteration_time_s"] <= 1.05 * KNOWN.t_min_s * (1 + 1e-9)
    deadline_s = 1.05 * KNOWN.t_min_s
    assert _planned(run, csv, "--deadline", f"{1e3 * deadline_s:.9f}ms")["energy_j"] == pytest.approx(
        by_slowdown["energy_j"], rel=1e-3
    )
    budget_j = 0.85 * KNOWN.baseline_energy_j
    assert _planned(run, csv, "--energy-budget", f"{budget_j}J")["energy_j"] <= budget_j * (1 + 1e-9)
    power_w = KNOWN.points[-1].energy_j / KNOWN.points[-1].iteration_time_s * 1.02
    within = _planned(run, csv, "--power-budget", f"{power_w / 1e3}kW")
    assert within["energy_j"] / within["iteration_time_s"] <= power_w * (1 + 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["instruction", "phase", "rank"])
def test_a_budget_gets_the_soonest_plan_and_what_is_allowed_instead_can_be_had(
    run: Run, csv: Path, granularity: str
) -> None:
    least = run("plan", csv, *SHAPE, "--granularity", granularity, "--energy-budget", "1J").err
    allowed = least.split("the least is ")[1].split(" J")[0]
    before = math.inf
    for share in (1.0, 1.02, 1.1):
        budget_j = float(allowed) * share
        found = _planned(run, csv, "--granularity", granularity, "--energy-budget", f"{budget_j!r}J")
        assert found["energy_j"] <= budget_j * (1 + 1e-9)
        assert found["iteration_time_s"] <= before
        before = found["iteration_time_s"]
    if 0.99 * before > KNOWN.t_min_s:
        sooner = _planned(run, csv, "--granularity", granularity, "--deadline", f"{0.99 * before}s")
        assert sooner["energy_j"] > budget_j


def test_units_that_are_hardly_right_are_asked_about(run: Run, csv: Path, tmp_path: Path) -> None:
    header, *rows = csv.read_text().splitlines()
    weak = [f"{row.rpartition(',')[0]},2.5" if "forward" in row else row for row in rows]
    odd = tmp_path / "odd.csv"
    odd.write_text("\n".join([header, *weak]))
    ran = run("plan", odd, "--microbatches", 6, "--blocking-power", 80)
    assert ran.status == 0
    assert ran.err.count("\n") == 1
    assert "are these seconds, joules and watts of one GPU?" in ran.err


def test_an_order_in_a_file_has_the_shape_that_was_asked_for(run: Run, csv: Path, tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    order.write_text("# one rank a line\n" + "\n".join(["F0 F1 B0 B1"] * 4))
    assert run("plan", csv, "--schedule", order, "--blocking-power", 80).status == 0
    ran = run("plan", csv, "--schedule", order, "--microbatches", 6, "--blocking-power", 80)
    assert ran.status == 2
    assert "orders 2 microbatches" in ran.err
    assert "make them the same, such as --microbatches 2" in ran.err


def test_beside_a_straggler_the_iteration_takes_as_long_as_its(run: Run, csv: Path) -> None:
    by_factor = _planned(run, csv, "--straggler", "1.2")
    by_time = _planned(run, csv, "--straggler", f"{1.2 * KNOWN.t_min_s}s")
    assert by_factor["iteration_time_s"] == pytest.approx(1.2 * KNOWN.t_min_s)
    assert by_factor["energy_j"] == pytest.approx(by_time["energy_j"])
    assert by_factor["lower_bound_j"] == pytest.approx(KNOWN.at(1.2 * KNOWN.t_min_s).energy_j, rel=1e-5)
    told = run("plan", csv, *SHAPE, "--straggler", "1.2").out
    assert "waiting for a straggler of" in told
    assert "100.0%" not in run("plan", csv, *SHAPE, "--straggler", "1.2", "--jitter", "1%", "--samples", 10).out


def test_a_picture_beside_a_straggler_has_no_critical_path_and_says_what_is_waited_for(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    alone, beside = tmp_path / "alone.svg", tmp_path / "beside.svg"
    assert run("plan", csv, *SHAPE, "--plot", alone).status == 0
    assert run("plan", csv, *SHAPE, "--straggler", "1.2", "--plot", beside).status == 0
    assert 'class="critical"' in alone.read_text()
    assert 'class="critical"' not in beside.read_text()
    assert "waits for another stage or the straggler" in beside.read_text()
    assert "straggler" not in alone.read_text()


def test_lags_cost_a_little_and_granularity_is_what_was_asked(run: Run, csv: Path) -> None:
    at_once, late = _planned(run, csv), _planned(run, csv, "--lag-ms", "5")
    assert late["energy_j"] > at_once["energy_j"]
    assert late["iteration_time_s"] <= KNOWN.t_min_s * (1 + 1e-9)
    assert _planned(run, csv, "--granularity", "phase", "--slowdown", "0.1")["granularity"] == "phase"


def test_the_table_reads_without_colour_where_it_is_no_terminal(run: Run, csv: Path) -> None:
    ran = run("plan", csv, *SHAPE)
    assert ran.status == 0
    assert "\x1b" not in ran.out
    assert "1f1b: 4 stages, 6 microbatches, 4 GPUs" in ran.out
    assert f"{KNOWN.t_min_s:.4f} s" in ran.out
    assert f"{KNOWN.baseline_energy_j:.1f} J" in ran.out
    assert "no plan can cost less than" in ran.out


def test_pictures_are_drawn_of_the_iteration_and_the_frontier(run: Run, csv: Path, tmp_path: Path) -> None:
    timeline, curve = tmp_path / "timeline.svg", tmp_path / "frontier.svg"
    assert run("plan", csv, *SHAPE, "--plot", timeline, curve).status == 0
    boxes = list(ElementTree.parse(timeline).iter("{http://www.w3.org/2000/svg}title"))
    assert len(boxes) == 2 * 4 * 12
    assert "plan, predicted" in ElementTree.tostring(ElementTree.parse(curve).getroot(), encoding="unicode")


@pytest.mark.slow
def test_jitter_is_replayed_and_a_quantile_is_kept(run: Run, csv: Path) -> None:
    noise = ("--jitter", "2%", "--samples", 20)
    spread = _planned(run, csv, *noise)["jitter"]
    assert spread["samples"] == 20
    assert spread["iteration_time_s"]["p95_s"] >= spread["iteration_time_s"]["p50_s"]
    kept = _planned(run, csv, *noise, "--quantile", "90%", "--margin", "0.2%")
    assert kept["robust"]["reserve"] > 0
    assert kept["robust"]["cost_j"] > 0
    told = run("plan", csv, *SHAPE, *noise, "--quantile", "90%", "--margin", "0.2%").out
    assert "plan without reserve" in told
    assert f"A reserve of {kept['robust']['reserve']:.2%} keeps that; it costs" in told


def test_instructions_of_ranks_with_several_stages_name_theirs(run: Run, csv: Path) -> None:
    ran = run(
        "plan",
        csv,
        "--schedule",
        "interleaved-1f1b",
        "--chunks",
        2,
        "--microbatches",
        4,
        "--blocking-power",
        80,
        "--json",
    )
    ranks = json.loads(ran.out)["ranks"]
    assert [rank["stages"] for rank in ranks] == [[0, 2], [1, 3]]
    assert {one["stage"] for one in ranks[1]["instructions"]} == {1, 3}


def test_a_schedule_may_be_a_file(run: Run, csv: Path, tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    order.write_text("\n".join(PIPELINE.schedule.to_text()))
    ran = run("plan", csv, "--schedule", order, "--blocking-power", 80, "--json")
    assert json.loads(ran.out)["energy_j"] == pytest.approx(_planned(run, csv)["energy_j"])


def test_a_schedule_s_file_says_which_messages_leave_later(run: Run, csv: Path, tmp_path: Path) -> None:
    order = tmp_path / "order.txt"
    lines = PIPELINE.schedule.to_text()
    order.write_text("\n".join([*lines[:-1], lines[-1].replace("B0 F1", "B0 F1 >B0")]))
    later = json.loads(run("plan", csv, "--schedule", order, "--blocking-power", 80, "--json").out)
    assert later["t_min_s"] > _planned(run, csv)["t_min_s"]


def test_clocks_between_the_measured_ones_can_be_filled_in(run: Run, csv: Path) -> None:
    finer = _planned(run, csv, "--clock-step", 20)
    clocks = {one["clock_mhz"] for rank in finer["ranks"] for one in rank["instructions"]}
    assert any(clock % 100 for clock in clocks)
    assert finer["iteration_time_s"] <= KNOWN.t_min_s * (1 + 1e-9)


def test_filling_in_clocks_costs_nothing_and_says_how_sure_it_is(run: Run, tmp_path: Path) -> None:
    rows = ["stage,instruction,frequency,time,energy"]
    for stage, size in enumerate((1.0, 0.9, 1.1, 0.95)):
        for kind, base in (("forward", 0.05), ("backward", 0.1)):
            for clock in range(1740, 599, -60):
                share = min(clock, 1560) / 1740
                seconds = size * base * (0.4 + 0.6 / share) * (1 + 0.3 * max(0, clock / 1560 - 1))
                seconds *= 1.06 if (stage, kind, clock) == (2, "forward", 1260) else 1
                rows.append(f"{stage},{kind},{clock},{seconds:.6f},{seconds * 250 * (0.25 + 0.75 * share**2.5):.4f}")
    uneven = tmp_path / "uneven.csv"
    uneven.write_text("\n".join(rows))
    asked = ("plan", uneven, "--schedule", "1f1b", "--stages", 4, "--microbatches", 4, "--blocking-power", 70)
    plain = json.loads(run(*asked, "--json").out)
    filled = json.loads(run(*asked, "--clock-step", 15, "--json").out)
    assert filled["savings"] >= plain["savings"] - 1e-4
    assert filled["certainty"]["savings"] == pytest.approx(filled["savings"], abs=0.01)
    assert filled["certainty"]["slowdown"] < 0.005
    assert "certainty" not in plain
    told = " ".join(run(*asked, "--clock-step", 15).out.split())
    assert "Hardly as the others: stage 2 F at 1260 MHz (+6.0% time" in told
    assert "It may be late" not in told


def test_transfers_and_tails_lengthen_the_iteration(run: Run, csv: Path) -> None:
    longer = _planned(run, csv, "--transfer-ms", 2, "--tail-ms", 30)
    neighbours = [(stage, stage + 1) for stage in range(3)]
    transfers = {(near, far, "F"): 0.002 for near, far in neighbours}
    transfers |= {(far, near, "B"): 0.002 for near, far in neighbours}
    slower = Pipeline(PIPELINE.schedule, PROFILE, transfers, tail_s=dict.fromkeys(range(4), 0.03))
    assert longer["t_min_s"] == pytest.approx(simulate(slower).iteration_time_s)


def test_several_gpus_a_stage_multiply_joules(run: Run, csv: Path) -> None:
    one, eight = _planned(run, csv), _planned(run, csv, "--gpus-per-stage", 8)
    assert eight["energy_j"] == pytest.approx(8 * one["energy_j"], rel=1e-3)
    assert eight["lower_bound_j"] == pytest.approx(8 * one["lower_bound_j"])


def test_zero_bubble_schedules_take_a_share_of_b_for_i_and_the_rest_for_w(run: Run, csv: Path) -> None:
    shape = ("--schedule", "zb-h1", "--microbatches", 6, "--blocking-power", 80, "--input-share", "50%", "--json")
    found = json.loads(run("plan", csv, *shape).out)
    assert {one["kind"] for one in found["ranks"][0]["instructions"]} == {"F", "I", "W"}
    assert found["t_min_s"] <= KNOWN.t_min_s


def test_polishing_never_costs_energy(run: Run, csv: Path) -> None:
    plain = _planned(run, csv, "--slowdown", "3%")
    assert _planned(run, csv, "--slowdown", "3%", "--polish", "100ms")["energy_j"] <= plain["energy_j"] * (1 + 1e-9)


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_shows_on_a_terminal_only(run: Run, csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert run("plan", csv, *SHAPE, "--json").status == 0
    assert "planning" in terminal.getvalue()


def test_watts_of_the_host_make_a_plan_that_may_take_long_take_less(run: Run, csv: Path) -> None:
    alone = _planned(run, csv, "--slowdown", "90%")
    hosted = _planned(run, csv, "--slowdown", "90%", "--host-power", "100W")
    assert hosted["iteration_time_s"] < alone["iteration_time_s"]
    assert hosted["energy_j"] > alone["energy_j"]


def test_a_minimum_dwell_is_kept(run: Run, csv: Path) -> None:
    made = _planned(run, csv, "--min-dwell-ms", 120)
    rows = [[one["clock_mhz"] for one in rank["instructions"]] for rank in made["ranks"]]
    assert simulate(PIPELINE, rows).least_dwell_s >= 0.12 - 1e-9


@pytest.mark.slow
def test_what_coarser_control_costs_is_shown(run: Run, csv: Path) -> None:
    found = _planned(run, csv, "--alternatives", "--slowdown", "5%")["alternatives"]
    assert [one["granularity"] for one in found] == ["instruction", "phase", "kind", "rank"]
    assert all(one["energy_j"] >= one["lower_bound_j"] * (1 - 1e-6) for one in found)
    told = run("plan", csv, *SHAPE, "--alternatives", "--slowdown", "5%").out
    assert "What coarser control costs" in told
    assert f"{found[2]['lower_bound_j']:.1f} J" in told
