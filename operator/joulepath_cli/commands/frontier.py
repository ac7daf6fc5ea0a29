"""`joulepath frontier`: the least energy for each iteration time."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.table import Table

from joulepath_cli import quantities, terminal
from joulepath_cli.commands import document, drawing, files
from joulepath_cli.commands import scenario as scenarios
from joulepath_cli.commands.scenario import Scenario
from joulepath_planner import ArgumentError, Frontier, Plan, frontier, frontier_plans, plan

__all__ = ["add_arguments", "run"]

_MOST_ROWS: Final = 33
_MOST_POINTS: Final = 10_000


def add_arguments(parser: ArgumentParser) -> None:
    scenarios.add_profile(parser)
    scenarios.add_arguments(parser)
    output = parser.add_argument_group("output")
    output.add_argument(
        "--points",
        type=_points,
        default=33,
        metavar="N|all",
        help="how many iteration times, or all breakpoints; a table shows 33 of them, --json all (33)",
    )
    output.add_argument("--plans", action="store_true", help="make a plan for each of these times, too")
    output.add_argument("--json", action="store_true", help="the frontier as JSON")
    output.add_argument("--plot", type=Path, metavar="SVG", help="draw it into this file")
    output.add_argument(
        "--beside", type=Path, metavar="CSV", help="draw another frontier with it; a CSV with columns time and energy"
    )


def run(options: Namespace) -> None:
    if options.beside and not options.plot:
        raise ArgumentError("--beside draws another frontier; say where with --plot.")
    files.check_outputs([options.plot] if options.plot else [], files.SVG)
    scenario = scenarios.load(options.profile, options)
    beside = (options.beside.name, drawing.read_frontier(options.beside)) if options.beside else None
    known, plans = _computed(scenario, options)
    if options.plot:
        files.write(options.plot, drawing.frontier_picture(scenario, known, None, plans, beside))
    if options.json:
        print(document.dumps(_document(scenario, known, plans)))
    else:
        terminal.show(_table(scenario, known, plans))


def _computed(scenario: Scenario, options: Namespace) -> tuple[Frontier, Sequence[Plan]]:
    if options.plans and not scenario.lags:
        with terminal.working("computing the frontier and its plans"):
            return frontier_plans(scenario.pipeline, options.points)
    with terminal.working("computing the frontier"):
        known = frontier(scenario.pipeline, options.points)
    plans: list[Plan] = []
    if options.plans:
        with terminal.working("planning", len(known.points)) as step:
            for point in known.points:
                plans.append(plan(scenario.pipeline, deadline_s=point.iteration_time_s, lags=scenario.lags, fixed=True))
                step()
    return known, plans


def _points(text: str) -> int | None:
    if text == "all":
        return None
    if (number := quantities.count(text)) < 2:
        raise ArgumentTypeError("a frontier has at least 2 points, its ends.")
    if number > _MOST_POINTS:
        raise ArgumentTypeError(
            f"{text} points are too many; up to {_MOST_POINTS} are computed, or all breakpoints: all."
        )
    return number


def _document(scenario: Scenario, known: Frontier, plans: Sequence[Plan]) -> dict[str, object]:
    """With plans, each point has the clocks of every instruction, rank by rank in the order that `ranks` tells once."""
    orders = scenario.pipeline.schedule.orders
    points: list[dict[str, object]] = [
        {
            "iteration_time_s": point.iteration_time_s,
            "energy_j": point.energy_j,
            "free_energy_j": point.free_energy_j,
            "price_w": point.price_w,
        }
        for point in known.points
    ]
    for point, made in zip(points, plans, strict=False):
        point |= {"plan_iteration_time_s": made.iteration_time_s, "plan_energy_j": made.energy_j}
        point |= {"optimality_gap": made.optimality_gap}
        point["clocks_mhz"] = [
            [clock or scenario.pipeline.profile.default_clock_mhz(one.stage) for one, clock in zip(*row, strict=True)]
            for row in zip(orders, made.clocks, strict=True)
        ]
    return {
        "t_min_s": known.t_min_s,
        "t_star_free_s": known.t_star_free_s,
        "t_star_fixed_s": known.t_star_fixed_s,
        "baseline_energy_j": known.baseline_energy_j,
        **({"ranks": [[one.label for one in order] for order in orders]} if plans else {}),
        "points": points,
    }


def _table(scenario: Scenario, known: Frontier, plans: Sequence[Plan]) -> Table:
    base = known.baseline_energy_j
    step = max(1, -(-len(known.points) // _MOST_ROWS))
    rows = []
    for place in sorted({*range(0, len(known.points), step), len(known.points) - 1}):
        point = known.points[place]
        energy = point.free_energy_j
        row = (
            f"{point.iteration_time_s:.4f}",
            terminal.change(point.iteration_time_s, known.t_min_s, 1),
            f"{energy:.1f}",
            terminal.change(energy, base, 1),
            f"{point.energy_j:.1f}",
            f"{point.energy_j / point.iteration_time_s:.0f}",
            f"{point.price_w:.0f}",
        )
        rows.append(
            (*row, f"{plans[place].energy_j:.1f}", terminal.share(plans[place].optimality_gap)) if plans else row
        )
    headings = ("T, s", "slowdown", "by T, J", "change", "at T, J", "at T, W", "worth, W")
    shown = f"; {len(rows)} of {len(known.points)} breakpoints (all: --json)" if step > 1 else ""
    return terminal.table(
        f"{scenario.title}; least energy of an iteration",
        (*headings, "plan, J", "gap") if plans else headings,
        rows,
        f"T_min {known.t_min_s:.4f} s, T*_free {known.t_star_free_s:.4f} s, T*_fixed {known.t_star_fixed_s:.4f} s; "
        f"default clocks {base:.1f} J. By T: least energy of an iteration that may end sooner; at T: of one that waits "
        f"until then; worth: what a second more saves{shown}",
    )
