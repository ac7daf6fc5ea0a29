"""`joulepath frontier`, `compare` and `explain`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joulepath_planner import LagTable, Pipeline, Replica, frontier, one_f_one_b, share_out, simulate
from tests.cli.command import PROFILE, Run

SHAPE = ("--microbatches", 6, "--blocking-power", 80)
KNOWN = frontier(Pipeline(one_f_one_b(4, 6), PROFILE), 5)


def test_the_frontier_is_the_planners(run: Run, csv: Path) -> None:
    found = json.loads(run("frontier", csv, *SHAPE, "--points", 5, "--json").out)
    assert found["t_min_s"] == pytest.approx(KNOWN.t_min_s)
    assert [one["energy_j"] for one in found["points"]] == pytest.approx([one.energy_j for one in KNOWN.points])
    assert "plan_energy_j" not in found["points"][0]


def test_plans_for_each_time_never_beat_it(run: Run, csv: Path) -> None:
    found = json.loads(run("frontier", csv, *SHAPE, "--points", 3, "--plans", "--json").out)
    assert all(one["plan_energy_j"] >= one["free_energy_j"] * (1 - 1e-6) for one in found["points"])
    assert all(one["plan_iteration_time_s"] <= one["iteration_time_s"] * (1 + 1e-9) for one in found["points"])


@pytest.mark.parametrize("lag", [(), ("--lag-ms", 1)])
def test_the_clocks_of_every_point_are_those_of_its_plan(run: Run, csv: Path, lag: tuple[object, ...]) -> None:
    found = json.loads(run("frontier", csv, *SHAPE, *lag, "--points", 3, "--plans", "--json").out)
    pipeline = Pipeline(one_f_one_b(4, 6), PROFILE)
    assert found["ranks"] == [[one.label for one in order] for order in pipeline.schedule.orders]
    for point in found["points"]:
        seen = simulate(
            pipeline,
            point["clocks_mhz"],
            LagTable.constant(0.001) if lag else None,
            pace_s=point["iteration_time_s"],
        )
        assert seen.energy_j == pytest.approx(point["plan_energy_j"])
    assert "ranks" not in json.loads(run("frontier", csv, *SHAPE, "--points", 3, "--json").out)


def test_the_frontiers_table_has_its_three_times(run: Run, csv: Path) -> None:
    told = run("frontier", csv, *SHAPE, "--points", 5, "--plans").out
    assert f"T_min {KNOWN.t_min_s:.4f} s, T*_free {KNOWN.t_star_free_s:.4f} s" in told
    assert f"{KNOWN.points[0].energy_j:.1f}" in told


def test_another_frontier_is_drawn_beside(run: Run, csv: Path, tmp_path: Path) -> None:
    theirs, picture = tmp_path / "theirs.csv", tmp_path / "frontier.svg"
    rows = [f"{one.iteration_time_s},{one.energy_j}" for one in KNOWN.points]
    theirs.write_text("\n".join(["time,energy", *rows]))
    assert run("frontier", csv, *SHAPE, "--plot", picture, "--beside", theirs).status == 0
    assert "theirs.csv" in picture.read_text()
    theirs.write_text("seconds,joules\n1,2\n")
    assert "its header must be time,energy" in run("frontier", csv, *SHAPE, "--plot", picture, "--beside", theirs).err
    assert "say where with --plot" in run("frontier", csv, *SHAPE, "--beside", theirs).err
    assert "at least 2 points" in run("frontier", csv, *SHAPE, "--points", 1).err


def test_granularities_and_slowdowns_stand_side_by_side(run: Run, csv: Path) -> None:
    ran = run("compare", csv, *SHAPE, "--granularity", "instruction,phase", "--slowdown", "0%,10%", "--json")
    found = json.loads(ran.out)
    assert [one["name"] for one in found] == [
        "instruction, 0%", "phase, 0%", "instruction, 10%", "phase, 10%"
    ]  # fmt: skip
    assert found[0]["other_clocks"] == 0
    assert found[2]["savings"] > found[0]["savings"]
    assert found[3]["slowdown"] <= 0.1 + 1e-9


def test_deadlines_and_stragglers_stand_side_by_side_as_they_are_planned(run: Run, csv: Path) -> None:
    deadline_s = f"{1.1 * KNOWN.t_min_s}s"
    for option, values in (("--deadline", deadline_s), ("--straggler", "1.1,1.2")):
        found = json.loads(run("compare", csv, *SHAPE, "--granularity", "auto", option, values, "--json").out)
        for one, value in zip(found, values.split(","), strict=True):
            made = json.loads(run("plan", csv, *SHAPE, option, value, "--json").out)
            assert one["energy_j"] == pytest.approx(made["energy_j"])
            assert one["savings"] == pytest.approx(made["savings"])
            assert one["iteration_time_s"] == pytest.approx(made["iteration_time_s"])
    assert "auto, straggler 1.2" in run("compare", csv, *SHAPE, "--granularity", "auto", "--straggler", "1.2").out
    assert "nothing to wait for" in run("compare", csv, *SHAPE, "--straggler", "0.9").err
    assert "not allowed with" in run("compare", csv, *SHAPE, "--straggler", "1.2", "--slowdown", "5%").err


def test_schedules_stand_side_by_side(run: Run, csv: Path) -> None:
    told = run("compare", csv, *SHAPE, "--schedule", "1f1b,gpipe", "--granularity", "instruction").out
    assert "1f1b, instruction, 0%" in told
    assert "gpipe, instruction, 0%" in told


def test_saved_plans_stand_side_by_side(run: Run, csv: Path, tmp_path: Path) -> None:
    paths = []
    for name, slowdown in (("tight", "0%"), ("loose", "10%")):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(run("plan", csv, *SHAPE, "--slowdown", slowdown, "--json").out)
    told = run("compare", *paths).out
    assert "tight.json (instruction)" in told
    assert "0/48" in told
    assert (
        run("compare", *paths, csv).err
        == "joulepath: compare takes either one profile or saved plans (.json), not both.\n"
    )
    assert "takes one profile, not 2" in run("compare", csv, csv, *SHAPE).err
    assert "'fine' is no granularity; it is one of auto" in run("compare", csv, "--granularity", "fine").err
    impossible = json.dumps(json.loads(paths[0].read_text()) | {"t_min_s": 0})
    for text in ("{}", "[1]", "no json", '{"ranks": 3, "iteration_time_s": 1}', impossible):
        paths[0].write_text(text)
        ran = run("compare", *paths)
        assert ran.status == 2
        assert "is no plan" in ran.err


def test_an_instruction_is_explained_in_sentences_and_as_data(run: Run, csv: Path) -> None:
    told = run("explain", csv, *SHAPE, "--instruction", "1:F0").out
    assert told.startswith("1:F0 on rank 1 runs at the default clock, 1400 MHz")
    assert "on the critical path" in told
    found = json.loads(run("explain", csv, *SHAPE, "--instruction", "1:F0", "--json").out)
    assert found["instructions"][0]["critical"] is True
    assert found["instructions"][0]["reason"] == "critical"
    assert found["instructions"][0]["slower"]["late_s"] > 0


def test_the_costliest_are_explained_where_none_is_named(run: Run, csv: Path) -> None:
    assert run("explain", csv, *SHAPE, "--top", 3, "--slowdown", "5%").out.count("on rank") == 3
    beside = json.loads(run("explain", csv, *SHAPE, "--top", 1, "--straggler", "1.3", "--json").out)
    assert beside["instructions"][0]["slack_s"] >= 0


def test_savings_by_stage_and_phase_add_up_to_the_plans(run: Run, csv: Path) -> None:
    made = json.loads(run("plan", csv, *SHAPE, "--straggler", "1.2", "--json").out)
    saved = json.loads(run("explain", csv, *SHAPE, "--straggler", "1.2", "--json").out)["savings"]
    saved_j = made["baseline_energy_j"] - made["energy_j"]
    assert sum(one["saved_j"] for one in saved) == pytest.approx(saved_j)
    told = run("explain", csv, *SHAPE, "--straggler", "1.2").out.splitlines()
    last = next(line.split() for line in told if line.split()[:1] == ["all"])
    assert last[-2:] == [f"{saved_j:.1f}", f"{saved_j / made['baseline_energy_j']:.2%}"]
    assert float(last[-2]) == pytest.approx(sum(map(float, last[1:-2])), abs=0.3)


def test_an_unknown_instruction_is_refused_with_one_that_is_known(run: Run, csv: Path) -> None:
    assert "instruction 'F0' names no stage; write it as 2:F0" in run("explain", csv, *SHAPE, "--instruction", "F0").err
    ran = run("explain", csv, *SHAPE, "--instruction", "9:F0")
    assert ran.status == 2
    assert "the schedule runs no 9:F0" in ran.err


def test_all_breakpoints_are_thinned_out_in_the_table_only(run: Run, csv: Path) -> None:
    found = json.loads(run("frontier", csv, *SHAPE, "--points", "all", "--json").out)
    assert len(found["points"]) > 33
    assert f" of {len(found['points'])} breakpoints" in run("frontier", csv, *SHAPE, "--points", "all").out


def test_a_plan_goes_out_as_perseus_writes_it_and_comes_back_as_it_was(run: Run, csv: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "freqs_pipeline_00000.py"
    made = json.loads(run("plan", csv, *SHAPE, "--slowdown", "5%", "--perseus", theirs, "--json").out)
    saved = tmp_path / "plan.json"
    saved.write_text(json.dumps(made))
    assert theirs.read_text().startswith("[\n[('forward', ")
    for path in (theirs, saved):
        seen = json.loads(run("replay", csv, path, *SHAPE, "--json").out)
        assert seen["energy_j"] == pytest.approx(made["energy_j"])
        assert seen["iteration_time_s"] == pytest.approx(made["iteration_time_s"])
        assert seen["savings"] == pytest.approx(made["savings"])
        assert seen["ours"]["energy_j"] >= seen["lower_bound_j"] * (1 - 1e-6)
    told = run("replay", csv, theirs, *SHAPE).out
    assert "to freqs_pipeline_00000.py" in told
    assert f"{made['energy_j']:.1f}" in told


def test_somebody_elses_clocks_stand_beside_default_ones_ours_and_the_bound(
    run: Run, csv: Path, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs.py"
    theirs.write_text(str([[1200] * 12] * 4))
    found = json.loads(run("replay", csv, theirs, *SHAPE, "--json").out)
    pipeline = Pipeline(one_f_one_b(4, 6), PROFILE)
    seen, default = simulate(pipeline, [[1200] * 12] * 4), simulate(pipeline)
    assert found["energy_j"] == pytest.approx(seen.energy_j)
    assert found["slowdown"] == pytest.approx(seen.iteration_time_s / default.iteration_time_s - 1)
    assert found["savings"] == pytest.approx(1 - seen.energy_j / default.energy_j)
    assert found["ours"]["iteration_time_s"] <= seen.iteration_time_s * (1 + 1e-9)
    assert found["ours"]["saves_more"] == pytest.approx(1 - found["ours"]["energy_j"] / seen.energy_j)
    assert found["optimality_gap"] > found["ours"]["optimality_gap"] >= -1e-6


def test_clocks_that_dont_fit_are_refused_with_the_file(run: Run, csv: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.py"
    for text, says in (
        ("[[1200]]", "theirs.py: it has clocks of 1 ranks, and the schedule 4; plan for as many stages"),
        ("import os", "theirs.py: it is no list of Python"),
        (str([[5] * 12] * 4), "rank 0 has a clock of 5 MHz; give whole numbers from 1000 to 1400 MHz"),
    ):
        theirs.write_text(text)
        ran = run("replay", csv, theirs, *SHAPE)
        assert (ran.status, ran.err.count("\n")) == (2, 1)
        assert says in ran.err
    saved = tmp_path / "plan.json"
    saved.write_text(run("plan", csv, "--microbatches", 3, "--blocking-power", 80, "--json").out)
    assert "has clocks of other instructions" in run("replay", csv, saved, *SHAPE).err
    theirs.write_text("import torch\n")
    assert "holds something else" in run("plan", csv, *SHAPE, "--perseus", theirs).err
    assert theirs.read_text() == "import torch\n"


def test_a_job_is_shared_out_as_the_planner_does(run: Run, csv: Path) -> None:
    found = json.loads(run("stragglers", csv, *SHAPE, "--replicas", 4, "--slower", "1.2,1.1", "--json").out)
    known = frontier(Pipeline(one_f_one_b(4, 6), PROFILE), 129)
    job = share_out([Replica(known, factor) for factor in (1.2, 1.1, 1.0, 1.0)])
    assert found["energy_j"] == pytest.approx(job.energy_j)
    assert found["savings"] == pytest.approx(job.savings)
    assert [one["factor"] for one in found["shares"]] == [1.2, 1.1, 1.0, 1.0]
    assert [one["t_opt_s"] for one in found["shares"]] == pytest.approx([share.t_opt_s for share in job.shares])
    told = run("stragglers", csv, *SHAPE, "--replicas", 4, "--slower", "1.2,1.1").out
    assert "2 x 1 " in told
    assert f"{job.energy_j:.1f}" in told
    assert (
        "--replicas is 1; give all pipelines" in run("stragglers", csv, *SHAPE, "--replicas", 1, "--slower", "1,2").err
    )
    assert "'fast' is no factor above 0" in run("stragglers", csv, *SHAPE, "--slower", "fast").err
