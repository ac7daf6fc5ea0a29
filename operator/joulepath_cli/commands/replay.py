"""`joulepath replay`: somebody's own clocks, beside ours for the time that they take."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from joulepath_cli import terminal
from joulepath_cli.commands import document
from joulepath_cli.commands import scenario as scenarios
from joulepath_planner import ArgumentError, Pipeline, Plan, ScheduleError, Simulation, perseus_clocks, plan, simulate
from joulepath_planner.inputs.schedule import Clocks
from joulepath_planner.inputs.text import read_text

__all__ = ["add_arguments", "run"]

_MOST_BYTES: Final = 8_000_000


def add_arguments(parser: ArgumentParser) -> None:
    scenarios.add_profile(parser)
    parser.add_argument(
        "clocks",
        type=Path,
        metavar="CLOCKS",
        help="Perseus's schedule (freqs_pipeline_00000.py), or a plan saved with plan --json (.json)",
    )
    scenarios.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="the figures as JSON")


def run(options: Namespace) -> None:
    scenario = scenarios.load(options.profile, options)
    pipeline = scenario.pipeline
    clocks = _clocks(options.clocks, pipeline)
    theirs = simulate(pipeline, clocks, scenario.lags)
    default = simulate(pipeline)
    with terminal.working("planning"):
        ours = plan(pipeline, deadline_s=max(theirs.iteration_time_s, default.iteration_time_s), lags=scenario.lags)
    if options.json:
        print(document.dumps(_document(default, theirs, ours)))
    else:
        terminal.show(_table(scenario.title, options.clocks.name, default, theirs, ours))


def _clocks(path: Path, pipeline: Pipeline) -> Clocks:
    """The clocks of a file, in the order of the pipeline's ranks.

    Raises:
        PlannerError: It holds none, or those of other instructions.
        OSError: It can't be read.
    """
    schedule = pipeline.schedule
    if path.suffix != ".json":
        try:
            return perseus_clocks(read_text(path, ArgumentError, _MOST_BYTES), schedule)
        except ScheduleError as error:
            raise ScheduleError(f"{path}: {error}") from None
    known = document.read(path).clocks
    if known.keys() != {(one.stage, one.kind, one.microbatch) for order in schedule.orders for one in order}:
        raise ScheduleError(
            f"{path} has clocks of other instructions than the schedule's; give the schedule and the shape that it was "
            "planned for."
        )
    return [[known[one.stage, one.kind, one.microbatch] for one in order] for order in schedule.orders]


def _document(default: Simulation, theirs: Simulation, ours: Plan) -> dict[str, Any]:
    return {
        "iteration_time_s": theirs.iteration_time_s,
        "energy_j": theirs.energy_j,
        "slowdown": theirs.iteration_time_s / ours.t_min_s - 1,
        "savings": 1 - theirs.energy_j / default.energy_j,
        "switches": theirs.switches,
        "lower_bound_j": ours.lower_bound_j,
        "optimality_gap": theirs.energy_j / ours.lower_bound_j - 1,
        "default": {"iteration_time_s": default.iteration_time_s, "energy_j": default.energy_j},
        "ours": {
            "iteration_time_s": ours.iteration_time_s,
            "energy_j": ours.energy_j,
            "savings": 1 - ours.energy_j / default.energy_j,
            "switches": ours.switches,
            "optimality_gap": ours.optimality_gap,
            "saves_more": 1 - ours.energy_j / theirs.energy_j,
        },
    }


def _table(title: str, name: str, default: Simulation, theirs: Simulation, ours: Plan) -> terminal.Table:
    found: list[tuple[str, Simulation | Plan]] = [
        ("default clocks", default),
        (name, theirs),
        ("ours by that time", ours),
    ]
    rows = [
        (
            label,
            f"{one.iteration_time_s:.4f}",
            terminal.change(one.iteration_time_s, ours.t_min_s),
            f"{one.energy_j:.1f}",
            terminal.change(one.energy_j, default.energy_j),
            terminal.change(one.energy_j, theirs.energy_j),
            terminal.share(one.energy_j / ours.lower_bound_j - 1),
            str(one.switches),
        )
        for label, one in found
    ]
    return terminal.table(
        title,
        ("clocks", "T, s", "slowdown", "energy, J", "to default", f"to {name}", "over the bound", "switches"),
        rows,
        f"no plan by {ours.deadline_s:.4f} s can cost less than {ours.lower_bound_j:.1f} J",
    )
